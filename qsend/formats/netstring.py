r"""Netstrings, `<length>:<bytes>,`, one inside the other, as their bytes come.

    >>> reader = NetstringReader()
    >>> reader.feed(b"9:3:abc,2:x")
    >>> reader.open(), reader.open(), reader.read(), reader.close()
    (9, 3, b'abc', True)
    >>> reader.open(), reader.read(), reader.left
    (2, b'x', 1)

Holds what was fed and not yet read, and no more. Must not: wait, or keep contents.
Source: djb's netstrings.txt; qmail-qmtpd.c, qmail-qmqpd.c.
"""

from __future__ import annotations

from qsend.core.errors import RemoteProtocolError

LENGTH_MAX = 200_000_000
"""Longest netstring that anybody may announce (qmail-qmtpd.c, qmail-qmqpd.c)."""
_DIGITS_MAX = 20
"""Leading zeros are passed over, but not for ever."""


class NetstringTooLong(RemoteProtocolError):
    """More than LENGTH_MAX bytes were announced: well said, but more than we take."""


def render(content: bytes) -> bytes:
    """`content` as a netstring."""
    return b"%d:%b," % (len(content), content)


class NetstringReader:
    """Opens, reads and closes netstrings; the innermost open one is read.

    Every method raises RemoteProtocolError when the bytes are no netstrings, or one
    inside another is longer than that has room for.
    """

    def __init__(self, length_max: int = LENGTH_MAX) -> None:
        self._length_max = length_max
        self._data = b""
        self._at = 0
        self._gone = 0
        """Bytes that were fed before those in `_data`."""
        self._ends: list[int] = []
        """Where each open one ends, in bytes that were ever fed; innermost last."""

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        self._data = self._data[self._at :] + data
        self._gone += self._at
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes of the innermost that were not yet read."""
        return self._ends[-1] - self._gone - self._at

    def open(self) -> int | None:
        """Enter the next netstring: its length. None: more bytes are needed.

        Raises: NetstringTooLong besides.
        """
        window_end = self._at + _DIGITS_MAX + 1
        colon = self._data.find(b":", self._at, window_end)
        digits = self._data[self._at : window_end if colon < 0 else colon]
        is_number = digits.isdigit() and len(digits) <= _DIGITS_MAX
        seen = len(digits) + (colon >= 0)
        if (seen and not is_number) or (self._ends and seen > self.left):
            raise RemoteProtocolError("expected the length of a netstring")
        if colon < 0:
            return None
        length = int(digits)
        if length > self._length_max:
            raise NetstringTooLong(f"netstring of {length} bytes")
        self._at = colon + 1
        if self._ends and length >= self.left:
            raise RemoteProtocolError("netstring longer than the one around it")
        self._ends.append(self._gone + self._at + length)
        return length

    def read(self) -> bytes:
        """What is there of the innermost; b"" at its end, or before more is fed."""
        data = self._data[self._at : self._ends[-1] - self._gone]
        self._at += len(data)
        return data

    def close(self) -> bool:
        """Leave the innermost, which must have been read. False: feed more."""
        if self.left:
            raise RemoteProtocolError("netstring with bytes left over")
        comma = self._data[self._at : self._at + 1]
        if not comma:
            return False
        if comma != b",":
            raise RemoteProtocolError("netstring without its comma")
        self._ends.pop()
        self._at += 1
        return True
