"""A message that is kept until filters have seen it: in memory, then in a file.

The file has no name, and is gone when it is closed.
Source: docs/NETWORK.md.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from qsend.core.errors import TempFail

MEMORY_MAX = 256 * 1024
"""Bytes of a message that are kept in memory."""
DIRECTORY = "run/milter"
"""Below the home: where the files are."""
_PIECE = 60_000


class Spool:
    """Bytes that are written first, and read afterwards as often as needed.

    Every method raises TempFail when there is no room, or nothing can be read.
    """

    def __init__(self, home: str) -> None:
        """Empty; `home` is where DIRECTORY is."""
        directory = os.path.join(home, DIRECTORY)
        self._file = tempfile.SpooledTemporaryFile(MEMORY_MAX, dir=directory)  # noqa: SIM115 - lives on
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add to it."""
        with _trouble():
            self._file.write(data)
        self.size += len(data)

    def head(self, length: int) -> bytes:
        """The first bytes."""
        with _trouble():
            self._file.seek(0)
            return self._file.read(length)

    def pieces(self, at: int = 0) -> Iterator[bytes]:
        """Everything from byte `at` on; nothing may be written meanwhile."""
        while data := self._read(at):
            at += len(data)
            yield data

    def close(self) -> None:
        """Forget it."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _read(self, at: int) -> bytes:
        with _trouble():
            self._file.seek(at)
            return self._file.read(_PIECE)


@contextlib.contextmanager
def _trouble() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise TempFail(f"{DIRECTORY}: {exc.strerror}") from exc
