"""The logger that qmail-start runs: a program that reads the log from a pipe.

Source: qmail-start(8), qmail-start.c.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

from qsend.core.errors import TempFail
from qsend.sysio.accounts import load_accounts
from qsend.sysio.fork import exec_program, fork_child
from qsend.sysio.privilege import drop


def start_logger(argv: Sequence[str], *, single_user: bool) -> None:
    """Run `argv` with our descriptor 1 as its output, and become its input.

    It runs as qmaill, in `/`, found by PATH; the environment is the caller's. Our
    descriptor 1 is its pipe from now on. It ends by itself when all who have that
    pipe have ended. One that cannot be run is no failure: the log is lost then.
    Raises: ConfigError without the account, TempFail without room for a process.
    """
    account = load_accounts(single_user).qmaill
    read, write = os.pipe2(os.O_CLOEXEC)

    def become() -> int:
        drop(account)
        os.chdir("/")
        os.umask(0o077)
        os.dup2(read, 0)
        os.close(read)
        _become(argv)

    fork_child(become, [read], "qmail-start")
    os.close(read)
    os.dup2(write, 1)
    os.close(write)


def _become(argv: Sequence[str]) -> NoReturn:
    """The program, with descriptor 2 closed, as qmail-start leaves it."""
    os.set_inheritable(2, False)
    reason = "not found in PATH"
    for path in _candidates(argv[0]):
        try:
            exec_program(path, argv, os.environb)
        except OSError as exc:
            if not isinstance(exc, FileNotFoundError):
                reason = str(exc.strerror)
    raise TempFail(f"cannot run the logger {argv[0]}: {reason}; the log is lost")


def _candidates(name: str) -> Sequence[str]:
    if "/" in name:
        return [name]
    return [os.path.join(directory or ".", name) for directory in os.get_exec_path()]
