"""What is held, kept over restarts: run/send/holds, one name per line.

A held message is stored with the birth of its info/N, because its number may be
another message's after a restart: `mess:<N> <birth>`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from qsend.core.errors import QueueCorrupt
from qsend.core.model import MessId
from qsend.sysio.fsq import Queue

HOLDS_MAX = 1 << 20


class HoldFile:
    """The file of holds; a missing one holds nothing."""

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self, queue: Queue) -> set[bytes]:
        """The names held; messages that are gone by now are left out.

        Raises: OSError when the file exists and cannot be read.
        """
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return set()
        try:
            content = os.read(fd, HOLDS_MAX)
        finally:
            os.close(fd)
        names = set()
        for line in content.splitlines():
            name, _, birth = line.partition(b" ")
            if name.startswith(b"mess:") and not birth:
                continue
            if not name.startswith(b"mess:") or birth == _birth(queue, name):
                names.add(name)
        return names

    def save(self, names: Iterable[bytes], queue: Queue) -> None:
        """Replace the file, durably. Raises: OSError; the old one stays then."""
        rows = []
        for name in sorted(names):
            birth = _birth(queue, name) if name.startswith(b"mess:") else b""
            rows.append(name + b" " + birth if birth else name)
        fresh = f"{self._path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(fresh, flags, 0o600)
        try:
            os.write(fd, b"".join(row + b"\n" for row in rows))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(fresh, self._path)
        directory = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _birth(queue: Queue, name: bytes) -> bytes:
    """The birth of the message's info file, or of its todo file; b"" for none.

    A file that cannot be used counts as none: whoever works the message tells.
    """
    if not name[5:].isdigit():
        return b""  # a damaged line names no message
    messid = MessId(int(name[5:]))
    with suppress(OSError, QueueCorrupt):
        return b"%d" % queue.read_info(messid)[1]
    with suppress(OSError, QueueCorrupt):
        return b"%d" % (queue.read_todo(messid)[1] // 1_000_000_000)
    return b""
