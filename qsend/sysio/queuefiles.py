"""New files of a queue, which get their first name when they are asked to.

Where the file system and /proc allow it a file has no name until then (O_TMPFILE),
and a crash leaves nothing; elsewhere a message starts with a name in pid/, as
qmail-queue's do. Must not sync. Source: qmail-queue.c pidopen(); open(2), link(2).
"""

from __future__ import annotations

import os

from qsend.core.model import SPLIT
from qsend.sysio import clock
from qsend.sysio.queuedirs import QueueDirs

_MODE = 0o644
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_PID_NAMES = 9
"""Names tried in pid/ (qmail-queue.c pidopen)."""
_FILES_IN_A_ROW = 64
"""Unnamed files made in one part of mess/ before the next part's turn."""


class QueueFiles:
    """Makes the files of messages and envelopes. Not for threads."""

    def __init__(self, dirs: QueueDirs) -> None:
        """Raises: OSError when a directory of the queue cannot be opened."""
        self._dirs = dirs
        self._pid_fd = dirs.fd("pid")
        self._intd_fd = dirs.fd("intd")
        self._gid = os.fstat(dirs.fd("todo")).st_gid
        self._serial = 0
        self.has_unnamed = self._try_unnamed()

    def message(self) -> tuple[int, str, int]:
        """An empty file for a message: (descriptor, name in pid/ or "", inode number).

        Raises: OSError; nothing is left then.
        """
        fd, name = (self._open_unnamed(), "") if self.has_unnamed else self._open_pid()
        try:
            return fd, name, self._own(fd)
        except OSError:
            os.close(fd)
            self.drop(name)
            raise

    def envelope(self, name: str) -> int:
        """A new file intd/`name`; its descriptor. Raises: OSError."""
        if self.has_unnamed:
            fd = self._open_unnamed()
        else:
            fd = os.open(name, _CREATE, _MODE, dir_fd=self._intd_fd)
        try:
            if self.has_unnamed:
                self.link(fd, "", name, self._intd_fd)
            self._own(fd)
        except OSError:
            os.close(fd)
            raise
        return fd

    def link(self, fd: int, old: str, new: str, dir_fd: int) -> None:
        """Give a file, which is called `old` in pid/ or "", a name. Raises: OSError."""
        if old:
            os.link(old, new, src_dir_fd=self._pid_fd, dst_dir_fd=dir_fd)
        else:
            # linkat with AT_SYMLINK_FOLLOW: os.link's default with a dir_fd.
            os.link(_proc_path(fd), new, dst_dir_fd=dir_fd)

    def drop(self, name: str) -> None:
        """Remove a name in pid/, if it is one. Raises: OSError."""
        if name:
            self._dirs.unlink(name, self._pid_fd)

    def _own(self, fd: int) -> int:
        """Give a new file the queue's mode and group; returns its inode number.

        Neither umask nor the caller's group may decide (qmail: umask 033, and
        the group of whoever injects).
        """
        found = os.fstat(fd)
        if found.st_mode & 0o7777 != _MODE:
            os.fchmod(fd, _MODE)
        if found.st_gid != self._gid:
            try:
                os.fchown(fd, -1, self._gid)
            except PermissionError:
                pass  # a queue of another group than ours; 0644 serves it as well
        return found.st_ino

    def _try_unnamed(self) -> bool:
        # Needs O_TMPFILE of the file system, and /proc to give the file a name.
        try:
            fd = self._open_unnamed()
        except OSError:
            return False
        try:
            return os.path.exists(_proc_path(fd))
        finally:
            os.close(fd)

    def _open_unnamed(self) -> int:
        # A file system takes a new inode from near the directory that it is asked
        # in: the parts of mess/ in turn. See sysio/inodegroups.py.
        self._serial += 1
        part = self._serial // _FILES_IN_A_ROW % SPLIT
        dir_fd = self._dirs.fd(f"mess/{part}")
        return os.open(".", os.O_WRONLY | os.O_TMPFILE, _MODE, dir_fd=dir_fd)

    def _open_pid(self) -> tuple[int, str]:
        """`pid/<pid>.<time>.<seq>`; the serial keeps messages of one second apart."""
        for seq in range(1, _PID_NAMES + 1):
            self._serial += 1
            name = f"{os.getpid()}.{clock.now()}.{self._serial}"
            try:
                return os.open(name, _CREATE, _MODE, dir_fd=self._pid_fd), name
            except FileExistsError:
                if seq == _PID_NAMES:
                    raise
        raise AssertionError("unreachable: the last try raises")


def _proc_path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
