r"""The text that forwarding tables are made from, and the text made of them.

    root@yp.to: god@heaven.af.mil, ?owner@yp.to, /etc/lists/staff.bin;   # comment

Blanks and line ends mean nothing; a backslash takes the next byte as it is.
Source: setforward(1), printforward(1); setforward.c, printforward.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from qsend.core.errors import PermFail, TempFail
from qsend.core.fastforward import parse_commands
from qsend.formats.aliases import ADDRESS_MAX

TABLE_MAX = 256 << 20
"""Longest source text taken: some five million aliases."""

_TOKEN = re.compile(
    rb"""(?P<comment>\#[^\n]*\n?)
    |(?P<blank>[ \n\t]+)
    |\\(?P<quoted>.)
    |(?P<mark>[:,;])
    |(?P<plain>[^\#\ \n\t\\:,;]+)
    |(?P<cut>\\\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_AS_THEY_ARE = (b"|", b"!", b".", b"/")
_UNSAFE = re.compile(rb"[\0-\x20,:;\\#\x80-\xff]")
"""What printforward.c quotes: also bytes over 127, which are negative there."""
_HEADER_BYTES = 2048
_RECORD = struct.Struct("<II")


def parse_table(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records (key, value) that a table's source asks for, in order.

    Raises: PermFail at wrong syntax, a NUL byte or an address over ADDRESS_MAX.
    """
    if b"\0" in text:
        raise PermFail("NUL bytes are not permitted")
    reader = _Reader()
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "mark":
            yield from reader.mark(match[0])
        elif kind in ("quoted", "plain"):
            reader.word += match[kind]
    if reader.target is not None or reader.word:
        raise PermFail("final instruction must end with semicolon")


class _Reader:
    """The instruction being read: `target` is None until its colon."""

    def __init__(self) -> None:
        self.word = bytearray()
        self.target: bytes | None = None
        self._value = bytearray()

    def mark(self, mark: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Take `:`, `,` or `;`; the records that are complete by it."""
        word = bytes(self.word)
        self.word.clear()
        if mark == b":":
            if self.target is not None:
                raise PermFail("double colons are not permitted")
            self.target = word.lower()
            return
        if self.target is None:
            raise PermFail("commas are not permitted before colons")
        if word[:1] == b"?":
            yield b"?" + self.target, word[1:]
        elif word:
            self._value += _command(word) + b"\0"
        if mark == b";":
            if self._value:
                yield b":" + self.target, bytes(self._value)
            self.target = None
            self._value.clear()


def _command(word: bytes) -> bytes:
    if word[:1] in _AS_THEY_ARE:
        return word
    if len(word) > ADDRESS_MAX:
        raise PermFail(f"addresses over {ADDRESS_MAX} bytes are not permitted")
    return word if word[:1] == b"&" else b"&" + word


def read_records(read: Callable[[int], bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The records of a constant database, read from its first byte on.

    Args:
        read: gives exactly so many bytes, fewer only at the end.
    Raises: PermFail when it is no database or ends too soon; what `read` raises.
    """

    def take(size: int) -> bytes:
        data = read(size)
        if len(data) < size:
            raise _bad_format()
        return data

    end = int.from_bytes(take(_HEADER_BYTES)[:4], "little")
    at = _HEADER_BYTES
    while at < end:
        key_bytes, value_bytes = _RECORD.unpack(take(_RECORD.size))
        at += _RECORD.size + key_bytes + value_bytes
        if at > end:
            raise _bad_format()
        yield take(key_bytes), take(value_bytes)


def render_record(key: bytes, value: bytes) -> bytes:
    """The source of one record, as parse_table reads it.

    Raises: PermFail when it is no record of a forwarding table.
    """
    target = _escaped(key[1:])
    if key[:1] == b"?":
        return target + b": ?" + _escaped(value) + b";\n"
    if key[:1] != b":":
        raise _bad_format()
    try:
        commands = parse_commands(value)
    except TempFail as exc:
        raise _bad_format() from exc
    lines = b"".join(b", " + _escaped(command) + b"\n" for command in commands)
    return target + b":\n" + lines + b";\n"


def _escaped(text: bytes) -> bytes:
    return _UNSAFE.sub(rb"\\\g<0>", text)


def _bad_format() -> PermFail:
    return PermFail("bad database format")
