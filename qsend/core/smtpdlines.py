"""Command lines of an SMTP client, cut from what it sends.

    >>> lines = Lines()
    >>> lines.feed(b"EHLO a.example\r\nMAIL")
    >>> lines.next()
    b'EHLO a.example'
    >>> lines.next()

Source: RFC 5321 4.5.3.1.4, RFC 4954 4; commands.c of qmail.
"""

from __future__ import annotations

LINE_MAX = 4096
"""Longest line: RFC 5321 says 512, but addresses of 900 bytes are taken, and an AUTH
line has a name and a password of 512 bytes each in base64."""


class LineTooLong(Exception):
    """A line has more than LINE_MAX bytes; the rest of it is skipped."""


class Lines:
    """Cuts what is fed; an unfinished line waits for its end, a long one does not."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._is_skipping = False

    def feed(self, data: bytes) -> None:
        """Take more of what the client sends; then ask `next` until None."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def next(self) -> bytes | None:
        """The next line, without its end; None when there is no whole line.

        Raises: LineTooLong, once for a line.
        """
        end = self._data.find(b"\n", self._at)
        if self._is_skipping:
            if end < 0:
                self._data, self._at = b"", 0
                return None
            self._is_skipping = False
            self._at = end + 1
            return self.next()
        length = (end if end >= 0 else len(self._data)) - self._at
        if length > LINE_MAX:
            self._is_skipping = True
            raise LineTooLong
        if end < 0:
            return None
        line = self._data[self._at : end]
        self._at = end + 1
        return line.removesuffix(b"\r")

    def take_rest(self) -> bytes:
        """What was fed and is in no line yet; nothing is left afterwards."""
        rest = self._data[self._at :]
        self._data, self._at = b"", 0
        return rest
