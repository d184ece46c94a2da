"""A program that speaks qmail's own wire, run as qmail-start would run it.

Source: qmail-start(8); qmail-start.c.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from qsend.core.errors import Fatal
from qsend.core.model import Account, Accounts
from qsend.sysio.fork import exec_program
from qsend.sysio.privilege import drop

_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicProgram:
    """One of --lspawn, --rspawn, --clean: what to run, with which argument."""

    role: str
    path: str
    home: str
    default_delivery: bytes
    single_user: bool


def run_classic(
    program: ClassicProgram, accounts: Accounts, sock: socket.socket
) -> int:
    """In a forked child: become the program; commands on 0, reports on 1.

    lspawn runs as root, rspawn as qmailr, clean as qmailq, each with the queue's
    group; descriptor 2 stays the log, where qmail would have it closed, so that a
    program that cannot start can say why. The environment is PATH, HOME and
    nothing that start was given.
    Raises: Fatal when the program cannot be executed.
    """
    os.dup2(sock.fileno(), 0)
    os.dup2(sock.fileno(), 1)
    sock.close()
    account, directory = _place(program, accounts)
    argv: list[str | bytes] = [os.path.basename(program.path)]
    if program.role == "classic-lspawn":
        argv.append(program.default_delivery)
    try:
        os.chdir(directory)
        if not program.single_user:
            drop(account)
        exec_program(program.path, argv, _environ(program))
    except OSError as exc:
        raise Fatal(f"cannot run {program.path}: {exc.strerror}") from exc


def _place(program: ClassicProgram, accounts: Accounts) -> tuple[Account, str]:
    gid = accounts.qmailq.gid
    match program.role:
        case "classic-lspawn":
            return accounts.root, f"{program.home}/queue/mess"
        case "classic-rspawn":
            return Account(uid=accounts.qmailr.uid, gid=gid), (
                f"{program.home}/queue/mess"
            )
        case _:
            return accounts.qmailq, f"{program.home}/queue"


def _environ(program: ClassicProgram) -> Mapping[str, str]:
    return {"PATH": f"{program.home}/bin:{_PATH}", "QSEND_HOME": program.home}
