"""A constant database that is opened again whenever its file has become another.

Source: cdb(5): writers rename a new file over the old one.
"""

from __future__ import annotations

import os

from qsend.sysio.cdbfile import CdbFile

_Stamp = tuple[int, int, int, int]


class WatchedCdb:
    """One database by its path; absent is a state of its own."""

    def __init__(self, path: str, shown: str) -> None:
        """`shown` names the file in errors. Nothing is opened before `refresh`."""
        self._path = path
        self._shown = shown
        self._stamp: _Stamp | None = None
        self._cdb: CdbFile | None = None

    @property
    def is_there(self) -> bool:
        """Whether the last `refresh` found the file."""
        return self._cdb is not None

    def refresh(self) -> bool:
        """Look whether the file changed; True if answers may differ from now on.

        Raises: ConfigError when it cannot be used, OSError when it cannot be read;
            the next call tries again.
        """
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            changed = self._stamp is not None
            self.close()
            return changed
        if self._stamp == _stamp(status):
            return False
        self.close()
        self._open()
        return True

    def get(self, key: bytes) -> bytes | None:
        """The value of the first record with `key`, or None; no file has no records.

        Raises: ConfigError when the file is damaged; OSError when it cannot be read.
        """
        return None if self._cdb is None else self._cdb.get(key)

    def close(self) -> None:
        """Give the descriptor back; `refresh` opens the file again."""
        if self._cdb is not None:
            self._cdb.close()
        self._stamp, self._cdb = None, None

    def _open(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            stamp = _stamp(os.fstat(fd))
            self._cdb = CdbFile(fd, self._shown)
        except BaseException:
            os.close(fd)
            raise
        self._stamp = stamp


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
