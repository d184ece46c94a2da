r"""SMTP's bytes: replies read, commands and content written.

Must not do: decide what a reply means (core.smtpc), read or write descriptors.
Source: RFC 5321 4.2 and 4.5.2; qmail-remote.c get(), smtpcode(), blast().
We differ from qmail: codes are checked; a dot is doubled after every line break
that goes out, also one made of a lone CR; a message without a final LF gets one,
where qmail-remote fails for good (#5.6.2): what it lacks harms nobody.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence

from qsend.core.errors import LocalProtocolError, RemoteProtocolError
from qsend.core.smtptypes import Command, Reply, Verb

TEXT_MAX = 5000
"""Longest reply text kept (qmail-remote.c HUGESMTPTEXT)."""
LINE_MAX = 4096
"""Longest reply line read; RFC 5321 4.5.3.1.5 asks for 512."""
REPLY_MAX = 65536
"""Most bytes of one reply, all its lines; EHLO's longest are below 2000."""

END = b".\r\n"
"""The end of the content, and all of an empty one."""

_BASE64 = (Verb.AUTH_PLAIN, Verb.CREDENTIAL)
_OPTIONS = {
    Verb.MAIL: b"MAIL FROM:<%s>",
    Verb.RCPT: b"RCPT TO:<%s>",
    Verb.EHLO: b"EHLO %s",
    Verb.HELO: b"HELO %s",
}


def render_command(command: Command) -> bytes:
    """One command line with its CRLF.

    Raises: LocalProtocolError when the argument holds CR, LF or NUL.
    """
    form = _OPTIONS.get(command.verb)
    if command.verb in _BASE64:
        words = (command.verb.value, binascii.b2a_base64(command.arg, newline=False))
        return b" ".join(filter(None, words)) + b"\r\n"
    if form is None:
        return command.verb.value + b"\r\n"
    arg = command.arg
    if b"\n" in arg or b"\r" in arg or b"\0" in arg:
        raise LocalProtocolError("line break or NUL in an SMTP command")
    line = form % arg
    if command.size is not None:
        line += b" SIZE=%d" % command.size
    if command.eight_bit:
        line += b" BODY=8BITMIME"
    return line + b"\r\n"


def render_commands(commands: Sequence[Command]) -> bytes:
    """Several command lines for one write. Raises: LocalProtocolError."""
    return b"".join(map(render_command, commands))


class ReplyReader:
    """Cuts replies out of what a peer sends, however it is cut.

    Call `feed` with each piece, then `take` until it returns None. Memory is
    bounded by LINE_MAX and TEXT_MAX plus one piece.
    """

    __slots__ = ("_buffer", "_bytes", "_class", "_text")

    def __init__(self) -> None:
        self._buffer = b""
        self._text = b""
        self._bytes = 0
        self._class = 0

    def feed(self, data: bytes) -> None:
        """Add what the peer sent."""
        self._buffer = self._buffer + data if self._buffer else data

    @property
    def is_ahead(self) -> bool:
        """Whether the peer has sent more than the replies taken."""
        return self._buffer != b""

    def take(self) -> Reply | None:
        """The next whole reply, or None: more bytes are needed.

        Raises: RemoteProtocolError, its text fit for a report; the peer is to
        be dropped.
        """
        while True:
            line, lf, rest = self._buffer.partition(b"\n")
            if len(line) >= LINE_MAX:
                raise RemoteProtocolError("reply line too long")
            if not lf:
                return None
            self._buffer = rest
            code, is_last = self._judge(line)
            self._keep(line)
            if is_last:
                reply = Reply(code, self._text)
                self._text, self._bytes, self._class = b"", 0, 0
                return reply

    def _judge(self, line: bytes) -> tuple[int, bool]:
        """(code, whether the reply ends here) of one line without its LF."""
        digits, mark = line[:3], line[3:4]
        if len(digits) < 3 or not digits.isdigit() or not 50 <= digits[0] <= 53:
            raise RemoteProtocolError("reply without a valid code")
        if mark.isdigit() or mark.isalpha():
            raise RemoteProtocolError("reply code of more than three characters")
        if self._class not in (0, digits[0]):
            raise RemoteProtocolError("reply of mixed codes")
        self._class = digits[0]
        return int(digits), mark != b"-"

    def _keep(self, line: bytes) -> None:
        self._bytes += len(line) + 1
        if self._bytes > REPLY_MAX:
            raise RemoteProtocolError("reply too long")
        if len(self._text) < TEXT_MAX:
            line = line.replace(b"\r", b"").replace(b"\0", b"?") + b"\n"
            self._text = (self._text + line)[:TEXT_MAX]


class ContentEncoder:
    """Turns a message with LF line ends into SMTP content, chunk by chunk.

    Each of LF, CR LF and lone CR goes out as CRLF, and a dot that begins a line
    is doubled. `finish` ends an unfinished line and adds the final dot.
    """

    __slots__ = ("_held_cr", "_is_line_start")

    def __init__(self) -> None:
        self._held_cr = b""
        self._is_line_start = True

    def encode(self, chunk: bytes) -> bytes:
        """The next bytes to send; b"" is possible."""
        if self._held_cr:
            chunk, self._held_cr = b"\r" + chunk, b""
        if b"\r" in chunk:
            if chunk.endswith(b"\r"):  # an LF may follow in the next chunk
                chunk, self._held_cr = chunk[:-1], b"\r"
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not chunk:
            return b""
        if b"\n." in chunk:
            chunk = chunk.replace(b"\n.", b"\n..")
        if self._is_line_start and chunk.startswith(b"."):
            chunk = b"." + chunk
        self._is_line_start = chunk.endswith(b"\n")
        return chunk.replace(b"\n", b"\r\n")

    def finish(self) -> bytes:
        """What ends the content after the last chunk."""
        if self._held_cr or not self._is_line_start:
            return b"\r\n" + END
        return END


def encode_content(message: bytes) -> bytes:
    """A whole message as SMTP content, its final dot included."""
    encoder = ContentEncoder()
    return encoder.encode(message) + encoder.finish()
