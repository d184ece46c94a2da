"""The directories of one queue, opened once; every queue file is reached by them.

A process opens only what it uses, so a missing permission shows where it matters.
No path is ever followed through a symbolic link below the queue directory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from qsend.core.errors import QueueCorrupt
from qsend.core.model import SPLIT, MessId
from qsend.formats.paths import SPLIT_DIRS
from qsend.sysio.filecalls import FileCalls

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_SPLIT_DIRS = frozenset(SPLIT_DIRS)


class QueueDirs:
    """Descriptors of the queue directory and of everything below it."""

    def __init__(self, path: str, calls: FileCalls = os) -> None:
        """Open the queue directory `path`. Raises: OSError."""
        self.calls = calls
        self._root = calls.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._fds: dict[str, int] = {}

    def fd(self, name: str) -> int:
        """Descriptor of a directory, as "todo" or "mess/7"; kept, never closed.

        Raises: OSError, also ENOTDIR for anything that is no directory.
        """
        fd = self._fds.get(name)
        if fd is None:
            opened = self.calls.open(name, _OPEN_DIR, dir_fd=self._root)
            fd = self._fds.setdefault(name, opened)
            if fd != opened:
                self.calls.close(opened)  # another thread was sooner
        return fd

    def of(self, name: str, messid: MessId) -> int:
        """Descriptor of the directory that holds this message's file of a kind."""
        return self.fd(dir_of(name, messid))

    def names(self, name: str) -> Iterator[str]:
        """Every entry of a directory, in its own order.

        The listing has a descriptor of its own, so listings may overlap; what is
        created or removed meanwhile may be given or not.
        """
        fd = self.calls.open(name, _OPEN_DIR, dir_fd=self._root)
        try:
            with self.calls.scandir(fd) as entries:
                for entry in entries:
                    yield entry.name
        finally:
            self.calls.close(fd)

    def open_regular(self, name: str, flags: int, dir_fd: int) -> tuple[int, int, int]:
        """(descriptor, size, mtime in nanoseconds) of an existing regular file.

        Never waits, follows no link, creates nothing.
        Raises: OSError; QueueCorrupt for anything that is no regular file.
        """
        try:
            fd = self.calls.open(
                name, flags | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=dir_fd
            )
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise QueueCorrupt(f"{name}: not a regular file") from exc
            raise
        found = self.calls.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            self.calls.close(fd)
            raise QueueCorrupt(f"{name}: not a regular file")
        return fd, found.st_size, found.st_mtime_ns

    def unlink(self, name: str, dir_fd: int) -> bool:
        """Remove a name; whether it was there. Raises: OSError but ENOENT."""
        try:
            self.calls.unlink(name, dir_fd=dir_fd)
        except FileNotFoundError:
            return False
        return True

    def exists(self, name: str, dir_fd: int) -> bool:
        """Whether a name is there. Raises: OSError when that cannot be known."""
        try:
            self.calls.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def write_all(self, fd: int, data: bytes) -> None:
        """Write every byte. Raises: OSError; the descriptor stays open."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.calls.write(fd, rest) :]

    def close(self) -> None:
        """Close every descriptor."""
        for fd in (*self._fds.values(), self._root):
            self.calls.close(fd)
        self._fds.clear()


def dir_of(name: str, messid: MessId) -> str:
    """The directory of a message's file: "info/20" for info, "todo" for todo."""
    return f"{name}/{messid % SPLIT}" if name in _SPLIT_DIRS else name
