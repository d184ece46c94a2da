r"""The bytes between DATA and the final dot: their end, their lines, their hops.

    >>> data = DataReader()
    >>> data.feed(b"a\r\n..b\r\n.\r\nQUIT\r\n")
    b'a\n.b\n'
    >>> data.is_over, data.rest
    (True, b'QUIT\r\n')

Only CR LF ends a line and only CR LF `.` CR LF the message: an LF without CR is
StrayNewline, whatever surrounds it, so that nobody smuggles a second message past
a relay that sees lines where we see none. A CR without LF is a byte like others.
Must not: keep the message; a few bytes wait for what follows them.
Source: qmail-smtpd.c blast(); RFC 5321 2.3.8, 4.1.1.4, 4.5.2; CVE-2023-51764.
"""

from __future__ import annotations

import re

HOPS_MAX = 100
"""So many Received and Delivered-To fields mean a loop (qmail-smtpd.c MAXHOPS)."""

_END = b"\r\n.\r\n"
_HOP = re.compile(rb"(?im)^(?:received|delivered-to)[ \t]*:")
_NAME_MAX = 64
"""Of a line that is not complete no more is kept: field names are shorter."""


class StrayNewline(Exception):
    """An LF without CR before it."""


class DataReader:
    """One message as it comes."""

    def __init__(self) -> None:
        self.is_over = False
        """Whether the final dot has come."""
        self.rest = b""
        """What came after it."""
        # As if a line had just ended: a dot may come first.
        self._held = b"\r\n"
        self._is_first = True

    def feed(self, data: bytes) -> bytes:
        """What `data` adds to the message, its lines ended by LF.

        Raises: StrayNewline.
        """
        data = self._held + data
        end = data.find(_END)
        if end >= 0:
            self.is_over = True
            self.rest = data[end + len(_END) :]
            body = data[: end + 2]
        else:
            keep = _undecided(data)
            body, self._held = data[: len(data) - keep], data[len(data) - keep :]
        if not body:
            return b""
        # No CR LF is cut in two: what ends in CR is held.
        if body.count(b"\n") != body.count(b"\r\n"):
            raise StrayNewline
        plain = body.replace(b"\r\n.", b"\r\n").replace(b"\r\n", b"\n")
        if self._is_first:
            self._is_first = False
            return plain[1:]
        return plain


def _undecided(data: bytes) -> int:
    """How many last bytes may begin the end of the message."""
    for length in range(len(_END) - 1, 0, -1):
        if data.endswith(_END[:length]):
            return length
    return 0


class HopCounter:
    """Counts the hops in a header that comes in pieces."""

    def __init__(self) -> None:
        self.hops = 0
        self._line: bytes | None = b""

    def feed(self, data: bytes) -> None:
        """Take more of the message, as DataReader gives it."""
        if self._line is None:
            return
        text = self._line + data
        end = 0 if text[:1] == b"\n" else text.find(b"\n\n") + 1
        if end or text[:1] == b"\n":
            self._line = None
        else:
            end = text.rfind(b"\n") + 1
            self._line = text[end : end + _NAME_MAX]
        self.hops += sum(1 for _ in _HOP.finditer(text, 0, end))
