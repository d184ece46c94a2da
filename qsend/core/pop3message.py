"""A stored message as POP3 sends it: CRLF, dots doubled, a dot at the end.

Stored lines end in LF; a CRLF that is stored stays one. A message without a line
end at its end gets one. Unlike qmail-pop3d, no empty line is added: what arrives is
what was stored.
Source: RFC 1939 sections 3 and 5.
"""

from __future__ import annotations

END = b".\r\n"


class Rendering:
    """Turns the pieces of one message into what goes over the line.

    With `body_lines` the body ends after so many lines (TOP); `is_complete` says
    that nothing of what follows is wanted.
    """

    def __init__(self, body_lines: int | None = None) -> None:
        self.is_complete = False
        self._body_lines = body_lines
        self._in_body = False
        self._at_line_start = True
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What to send for the next piece, cut anywhere."""
        piece = self._held + piece
        # A CR may be half of a line end.
        self._held = b"\r" if piece.endswith(b"\r") else b""
        if self._held:
            piece = piece[:-1]
        return self._send(piece.replace(b"\r\n", b"\n"))

    def finish(self) -> bytes:
        """What to send after the last piece."""
        rest = b"" if self.is_complete else self._send(self._held)
        return rest + (b"" if self._at_line_start else b"\r\n") + END

    def _send(self, text: bytes) -> bytes:
        if self._body_lines is not None:
            text = self._cut(text, self._body_lines)
        if not text:
            return b""
        stuffed = text.replace(b"\n.", b"\n..")
        if self._at_line_start and text[:1] == b".":
            stuffed = b"." + stuffed
        self._at_line_start = text[-1:] == b"\n"
        return stuffed.replace(b"\n", b"\r\n")

    def _cut(self, text: bytes, lines: int) -> bytes:
        """What is wanted of `text`; counts the lines."""
        if self.is_complete:
            return b""
        at = 0 if self._in_body else self._end_of_header(text)
        if at is None:
            return text
        self._in_body = True
        for _ in range(lines):
            end = text.find(b"\n", at)
            if end < 0:
                self._body_lines = lines
                return text
            at = end + 1
            lines -= 1
        self.is_complete = True
        return text[:at]

    def _end_of_header(self, text: bytes) -> int | None:
        """Where the body begins; None when it is not in this piece."""
        if self._at_line_start and text[:1] == b"\n":
            return 1
        found = text.find(b"\n\n")
        return None if found < 0 else found + 2
