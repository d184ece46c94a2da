"""The lock that lets only one queue manager, ours or qmail's, run on a queue.

Source: qmail-send.c main(), lock/sendmutex.
"""

from __future__ import annotations

import fcntl
import os

from qsend.core.errors import Fatal

MUTEX = "lock/sendmutex"
"""Below the queue directory; qmail-send locks the same file."""


REPAIR = "lock/repair"
"""Exists while `qsend repair` renames; after a cut, until a repair has ended."""


def lock_queue(queue: str) -> int:
    """Lock the queue for this process and whoever inherits the descriptor.

    Returns: the descriptor; the lock is gone when its last copy is closed.
    Raises: Fatal when somebody else holds the lock or the file cannot be opened,
        and when a repair was cut off.
    """
    try:
        fd = take_lock(queue)
    except Fatal as exc:
        raise Fatal(f"cannot start: {exc}") from exc
    if os.path.lexists(os.path.join(queue, REPAIR)):
        os.close(fd)
        raise Fatal("cannot start: a repair was cut off; run `qsend repair` again")
    return fd


def take_lock(queue: str) -> int:
    """As lock_queue, also of a queue under repair."""
    path = os.path.join(queue, MUTEX)
    try:
        # The directory is qmailq's, and this is root: no link is followed.
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags)
    except OSError as exc:
        raise Fatal(f"unable to open mutex: {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise Fatal("qmail-send is already running") from exc
    return fd
