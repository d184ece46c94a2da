"""The message of one delivery: read in pieces through its one descriptor.

Must not use the descriptor's offset: programs do (see sysio.program).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from qsend.core.errors import PermFail, TempFail
from qsend.core.localenv import LoopScan

CHUNK_BYTES = 65536
"""Bytes per read: all of an ordinary message, and nothing to ten threads."""


class MessageFile:
    """Reads a seekable file from its start, any number of times."""

    __slots__ = ("_head", "_size", "fd")

    def __init__(self, fd: int) -> None:
        """Read from `fd`, which stays the caller's to close."""
        self.fd = fd
        self._head: bytes | None = None
        self._size = -1

    def size(self) -> int:
        """Bytes of the message. Raises: TempFail when that cannot be told."""
        if self._size < 0:
            try:
                self._size = os.fstat(self.fd).st_size
            except OSError as exc:
                raise _unreadable(exc) from exc
        return self._size

    def chunks(self) -> Iterator[bytes]:
        """The whole message, at most CHUNK_BYTES at a time; the first is kept.

        Raises: TempFail when reading fails.
        """
        if self._head is None:
            self._head = self._read(0)
        if not self._head:
            return
        yield self._head
        offset = len(self._head)
        while offset < self.size() and (chunk := self._read(offset)):
            yield chunk
            offset += len(chunk)

    def _read(self, offset: int) -> bytes:
        try:
            return os.pread(self.fd, CHUNK_BYTES, offset)
        except OSError as exc:
            raise _unreadable(exc) from exc


def _unreadable(exc: OSError) -> TempFail:
    return TempFail(f"Unable to read the message: {exc.strerror}. (#4.3.0)")


def check_loop(message: MessageFile, dtline: bytes) -> None:
    """Refuse a message that was delivered to this address before.

    Args:
        message: only its header is read.
        dtline: the Delivered-To line with its LF; an equal header line, byte for
            byte, is a loop.
    Raises: PermFail on a loop; TempFail when reading fails.
    """
    scan = LoopScan(dtline)
    for chunk in message.chunks():
        if scan.feed(chunk):
            break
    if scan.found:
        raise PermFail(
            "This message is looping: it already has my Delivered-To line. (#5.4.6)"
        )
