"""A constant database on disk, read record by record, however damaged it is.

Reads with pread: a file cut short under us gives an error, where a memory map
would kill the process. Source: cdb(5), injection notes on the format: 4 GiB, 256
hash tables, empty slot ends a search.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import cdblib

from qsend.core.errors import ConfigError, ConfigFault

_HEADER_BYTES = 2048
_FIELD_MAX = 65536
"""Longest key or value read in one piece, unless said otherwise; those of users/cdb
are below 3 KiB."""
_READS_MAX = 4096
"""Reads of one search. Tables are half empty, so a search probes a few slots; a
damaged table without an empty slot would be searched for ever."""


class _Damaged(Exception):
    """The file leads nowhere; CdbFile adds its name."""


class _Pages:
    """The bytes of a file, as the cdb reader wants them: by slices."""

    def __init__(self, fd: int, field_max: int) -> None:
        self._fd = fd
        self._field_max = field_max
        self._size = os.fstat(fd).st_size
        self._header = os.pread(fd, _HEADER_BYTES, 0)
        self.reads_left = _READS_MAX

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        length = span.stop - span.start
        if length > self._field_max:
            raise _Damaged(f"found a field of {length} bytes")
        self.reads_left -= 1
        if self.reads_left < 0:
            raise _Damaged("found a hash table without an end")
        if span.stop <= len(self._header):
            return self._header[span]
        return os.pread(self._fd, length, span.start)


class CdbFile:
    """One open database; `get` looks a key up."""

    def __init__(self, fd: int, shown: str, field_max: int = _FIELD_MAX) -> None:
        """Own the descriptor `fd`, open for reading; `shown` names it in errors.

        Keys and values longer than `field_max` bytes count as damage.
        Raises: ConfigError when the file is too short to be a database; OSError.
            The descriptor stays the caller's then.
        """
        self._fd = fd
        self._shown = shown
        self._pages = _Pages(fd, field_max)
        if len(self._pages) < _HEADER_BYTES:
            raise self._fault(f"expected {_HEADER_BYTES} bytes or more")
        self._reader = cdblib.Reader(data=self._pages)

    def get(self, key: bytes) -> bytes | None:
        """The value of the first record with `key`, or None.

        Raises: ConfigError when the file is damaged; OSError when it cannot be read.
        """
        self._pages.reads_left = _READS_MAX
        try:
            value: bytes | None = self._reader.get(key)
        except _Damaged as exc:
            raise self._fault(str(exc)) from exc
        except struct.error as exc:
            raise self._fault("it ends inside a record or a table") from exc
        return value

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value), in the order in which they were written.

        Raises: as `get`.
        """
        try:
            for record in self._reader.iteritems():
                self._pages.reads_left = _READS_MAX
                yield record
        except _Damaged as exc:
            raise self._fault(str(exc)) from exc
        except struct.error as exc:
            raise self._fault("it ends inside a record") from exc

    def close(self) -> None:
        """Close the descriptor; call it once."""
        os.close(self._fd)

    def _fault(self, problem: str) -> ConfigError:
        text = f"not a constant database: {problem}"
        return ConfigError([ConfigFault(file=self._shown, line=0, problem=text)])
