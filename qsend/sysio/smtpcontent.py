"""A queued message as SMTP content, read through its descriptor.

Must not use the descriptor's offset, nor any path.
Source: pread(2); RFC 5321 4.5.2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from qsend.core.errors import TempFail
from qsend.formats.smtp import ContentEncoder, encode_content

WHOLE_MAX = 32768
"""Messages up to this many bytes are read at once and their descriptor closed:
nearly all mail, and 64 MiB for 2000 deliveries at a time."""
CHUNK_BYTES = 131072
"""Bytes per read of longer messages; one such piece is in memory per session."""
SCAN_MAX = 1 << 20
"""Bytes looked through for 8-bit content, a millisecond's work; what is longer
is called 8-bit unseen, which RFC 6152 allows of any content."""


class Content:
    """One message; `size` in bytes and `is_eight_bit` go into MAIL.

    `whole` is the encoded content with its final dot, None when it is read in
    chunks. A kept descriptor is closed by `close`.
    """

    __slots__ = ("_fd", "is_eight_bit", "size", "whole")

    def __init__(self, fd: int) -> None:
        """Own `fd`, a regular file of any offset.

        Raises: TempFail when it cannot be read; `fd` is closed then.
        """
        self._fd: int | None = fd
        self.whole: bytes | None = None
        try:
            self.size = os.fstat(fd).st_size
            if self.size <= WHOLE_MAX:
                self._read_whole(fd)
            else:
                self.is_eight_bit = self._scan(fd)
        except OSError as exc:
            self.close()
            raise _unreadable(exc.strerror) from exc
        except TempFail:
            self.close()
            raise

    def chunks(self) -> Iterator[tuple[bytes, bool]]:
        """The encoded content in pieces, and whether each is the last: it has the dot.

        Raises: TempFail when reading fails or the file is not `size` bytes long.
        """
        if self._fd is None:
            raise _unreadable("closed")
        encoder, at = ContentEncoder(), 0
        while at < self.size:
            chunk = self._read(self._fd, at)
            at += len(chunk)
            if at < self.size:
                yield encoder.encode(chunk), False
            else:
                yield encoder.encode(chunk) + encoder.finish(), True

    def close(self) -> None:
        """Give the descriptor back."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _read_whole(self, fd: int) -> None:
        message = os.pread(fd, self.size + 1, 0)
        if len(message) != self.size:
            raise _unreadable("its length changed")
        self.is_eight_bit = not message.isascii()
        self.whole = encode_content(message)
        # The size that counts for a peer's limit has its line ends (RFC 1870).
        self.size = len(self.whole) - 3
        self.close()

    def _scan(self, fd: int) -> bool:
        if self.size > SCAN_MAX:
            return True
        starts = range(0, self.size, CHUNK_BYTES)
        return not all(self._read(fd, at).isascii() for at in starts)

    def _read(self, fd: int, at: int) -> bytes:
        try:
            chunk = os.pread(fd, min(CHUNK_BYTES, self.size - at), at)
        except OSError as exc:
            raise _unreadable(exc.strerror) from exc
        if not chunk:
            raise _unreadable("it is shorter than it was")
        return chunk


def _unreadable(why: str | None) -> TempFail:
    return TempFail(f"Unable to read message: {why}. (#4.3.0)")
