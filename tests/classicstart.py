"""What qmail's own qmail-start does, for tests: six pipes, three children, an exec.

    python -m tests.classicstart HOME MODE DEFAULTDELIVERY

MODE root gives each program its account; with user all stay the caller's.
The log is standard output. The programs are those of HOME/bin.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import sys
from collections.abc import Sequence


def become(account: str) -> None:
    """The account, in group qmail alone; "" for nobody else."""
    if not account:
        return
    gid = grp.getgrnam("qmail").gr_gid
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(pwd.getpwnam(account).pw_uid)


def spawn(account: str, argv: Sequence[str], reads: int, writes: int) -> None:
    if os.fork():  # noqa: TID251 - stands for a program of qmail
        return
    become(account)
    os.dup2(reads, 0)
    os.dup2(writes, 1)
    os.closerange(2, 64)
    os.execv(argv[0], list(argv))


def main(home: str, mode: str, default: str) -> None:
    os.umask(0o077)
    accounts = ("root", "qmailr", "qmailq", "qmails")
    lspawn, rspawn, clean, send = accounts if mode == "root" else ("",) * 4
    pipes = [tuple(map(high, os.pipe())) for _ in range(6)]
    for at, (account, words) in enumerate(
        (
            (lspawn, ("qmail-lspawn", default)),
            (rspawn, ("qmail-rspawn",)),
            (clean, ("qmail-clean",)),
        )
    ):
        program = (f"{home}/bin/{words[0]}", *words[1:])
        spawn(account, program, pipes[2 * at][0], pipes[2 * at + 1][1])
    os.dup2(1, 0)
    become(send)
    for at, (reads, writes) in enumerate(pipes):
        os.dup2(writes if at % 2 == 0 else reads, at + 1)
    os.closerange(7, 64)
    os.execv(f"{home}/bin/qmail-send", ["qmail-send"])


def high(fd: int) -> int:
    """The descriptor at a number of 20 or more."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD, 20)
    os.close(fd)
    return moved


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
