"""A message between DATA and its final dot, and why it may not be taken.

Source: qmail-smtpd.c blast(); RFC 5321 6.3.
"""

from __future__ import annotations

from qsend.core import smtpdreplies as replies
from qsend.core.smtpdata import HOPS_MAX, DataReader, HopCounter
from qsend.core.smtpdsteps import Abandon, Chunk


class Body:
    """One message as it comes; `refusal` is why it is not taken, None when it is."""

    def __init__(self) -> None:
        self.refusal: bytes | None = None
        self._reader = DataReader()
        self._hops = HopCounter()
        self._size = 0

    @property
    def is_over(self) -> bool:
        """Whether the final dot has come."""
        return self._reader.is_over

    @property
    def rest(self) -> bytes:
        """What came after it."""
        return self._reader.rest

    def feed(self, data: bytes, databytes: int) -> Chunk | Abandon | None:
        """What to do with the bytes, of which `databytes` may come; 0: any number.

        Abandon is said once; None: nothing to do. Raises: StrayNewline.
        """
        chunk = self._reader.feed(data)
        if self.refusal is not None or not chunk:
            return None
        self._hops.feed(chunk)
        self._size += len(chunk)
        if self._hops.hops >= HOPS_MAX:
            self.refusal = replies.LOOPING
        elif 0 < databytes < self._size:
            self.refusal = replies.TOO_LARGE
        return Chunk(data=chunk) if self.refusal is None else Abandon()
