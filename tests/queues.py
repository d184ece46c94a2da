"""Accounts and queue directories for tests that need a real queue."""

from __future__ import annotations

import os
from pathlib import Path

from qsend.core.model import Account, Accounts, MessId
from qsend.formats import paths
from qsend.sysio import queuemaker


def own_accounts() -> Accounts:
    """Every role is the user who runs the tests, as in single-user mode."""
    me = Account(uid=os.getuid(), gid=os.getgid())
    return Accounts(
        alias=me, qmaild=me, qmaill=me, qmailp=me, qmailq=me, qmailr=me, qmails=me,
        root=me,
    )  # fmt: skip


def separate_accounts(base: int = 64100) -> Accounts:
    """A uid per role that no account of the machine has; two groups, as qmail's.

    The default is in the range that Debian never gives out by itself.
    """
    group, nofiles = base, base + 1
    return Accounts(
        alias=Account(uid=base + 1, gid=nofiles),
        qmaild=Account(uid=base + 2, gid=nofiles),
        qmaill=Account(uid=base + 3, gid=nofiles),
        qmailp=Account(uid=base + 4, gid=nofiles),
        qmailq=Account(uid=base + 5, gid=group),
        qmailr=Account(uid=base + 6, gid=nofiles),
        qmails=Account(uid=base + 7, gid=group),
        root=Account(uid=0, gid=group),
    )


def make_queue(home: Path, accounts: Accounts | None = None) -> Path:
    """A complete, empty queue below `home`; returns the queue directory."""
    queuemaker.create(str(home), accounts or own_accounts())
    return home / "queue"


def inject(
    queue: Path,
    mess: bytes = b"Received: x\n\nhello\n",
    envelope: bytes | None = b"u0\0p1\0Fa@x\0Tb@y\0",
    owner: Account | None = None,
) -> MessId:
    """Put a message into a real queue as a qmail-queue does; its number.

    `envelope` None stops before it is written (S2).
    """
    born = queue / f"pid/{os.getpid()}.{os.urandom(4).hex()}"
    born.write_bytes(mess)
    born.chmod(0o644)
    messid = MessId(born.stat().st_ino)
    born.rename(queue / paths.mess(messid))
    if owner is not None:
        os.chown(queue / paths.mess(messid), owner.uid, owner.gid)
    if envelope is not None:
        intd = queue / paths.intd(messid)
        intd.write_bytes(envelope)
        if owner is not None:
            os.chown(intd, owner.uid, owner.gid)
        (queue / paths.todo(messid)).hardlink_to(intd)
    return messid
