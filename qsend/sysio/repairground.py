"""A queue with nobody in it: what a repair needs before it may look and rename.

The queue manager is kept out by its lock, and by a mark that outlives a cut; enqueue
must have been stopped; and a qmail-queue of qmail's own finds `pid` closed while
files are renamed, so that its caller tries again later.
Source: queue_layout.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from qsend.core.errors import Fatal
from qsend.core.model import Account, Accounts
from qsend.formats.layout import Role
from qsend.sysio import queuemaker
from qsend.sysio.queueclient import connect, socket_path
from qsend.sysio.runlock import MUTEX, REPAIR, take_lock

_PROBE_S = 1.0
_PID_OPEN = 0o700
_PID_CLOSED = 0o500
"""Nobody but root makes a file there."""
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def owners(accounts: Accounts) -> Mapping[Role, Account]:
    """The owner of each role's files."""
    return {role: queuemaker.owner_of(role, accounts) for role in Role}


@contextmanager
def alone(home: str, accounts: Accounts, *, dry_run: bool) -> Iterator[None]:
    """Keep every queue manager out.

    A queue whose lock is missing gets its directories first; in a dry run it stays
    as it is.
    Raises: Fatal when somebody works the queue, or it cannot be made.
    """
    if _is_served(home):
        raise Fatal("enqueue takes mail for this queue; `qsend stop --all` first")
    queue = f"{home}/queue"
    if not os.path.lexists(f"{queue}/{MUTEX}"):
        if dry_run:
            yield
            return
        queuemaker.create(home, accounts)
    try:
        lock = take_lock(queue)
    except Fatal as exc:
        raise Fatal(f"{exc}; nothing is repaired while the queue is in use") from exc
    try:
        yield
    finally:
        os.close(lock)


def _is_served(home: str) -> bool:
    try:
        connect(socket_path(home), _PROBE_S).close()
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return False
    except OSError as exc:
        raise Fatal(f"{socket_path(home)}: {exc.strerror}") from exc
    return True


@contextmanager
def renaming(queue: str) -> Iterator[None]:
    """Mark the queue as under repair; the mark stays when the work ends in an error.

    What was just restored is on the disk before the first file is renamed.
    Raises: OSError.
    """
    os.sync()
    lock = os.open(f"{queue}/lock", _OPEN_DIR)
    try:
        name = os.path.basename(REPAIR)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o600, dir_fd=lock))
        os.fsync(lock)
        _set_mode(f"{queue}/pid", _PID_CLOSED)
        yield
        os.sync()
        os.unlink(name, dir_fd=lock)
        os.fsync(lock)
        _set_mode(f"{queue}/pid", _PID_OPEN)
    finally:
        os.close(lock)


def _set_mode(path: str, mode: int) -> None:
    fd = os.open(path, _OPEN_DIR)
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
