"""The lock that lets only one queue manager, ours or qmail's, run on a queue.

Source: qmail-send.c main(), lock/sendmutex.
"""

from __future__ import annotations

import fcntl
import os

from qsend.core.errors import Fatal

MUTEX = "lock/sendmutex"
"""Below the queue directory; qmail-send locks the same file."""


def lock_queue(queue: str) -> int:
    """Lock the queue for this process and whoever inherits the descriptor.

    Returns: the descriptor; the lock is gone when its last copy is closed.
    Raises: Fatal when somebody else holds the lock or the file cannot be opened.
    """
    path = os.path.join(queue, MUTEX)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise Fatal(
            f"cannot start: unable to open mutex: {path}: {exc.strerror}"
        ) from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise Fatal("cannot start: qmail-send is already running") from exc
    return fd
