"""Mailing lists: lines of text, and the binary form that fastforward reads.

The binary form is a series of commands, `&address` or the path of another list,
each with a NUL behind it.
Source: setmaillist(1), printmaillist(1); setmaillist.c, printmaillist.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from qsend.core.errors import PermFail, TempFail
from qsend.core.fastforward import COMMAND_MAX
from qsend.formats.aliases import ADDRESS_MAX

LIST_MAX = 256 << 20
"""Longest list taken: some ten million addresses."""

_BLANKS = b" \t\n"


def parse_lines(text: bytes) -> Iterator[bytes]:
    """The commands of a list given as lines, without their NULs.

    Raises: TempFail at a NUL byte or an address over ADDRESS_MAX.
    """
    if b"\0" in text:
        raise TempFail("NUL in input")
    for raw in text.split(b"\n"):
        line = raw.rstrip(_BLANKS)
        if not line or line[:1] == b"#":
            continue
        if line[:1] in (b".", b"/"):
            yield line
            continue
        if len(line) > ADDRESS_MAX:
            raise TempFail(f"addresses must be under {ADDRESS_MAX} bytes")
        yield line if line[:1] == b"&" else b"&" + line


def render_lines(binary: bytes) -> Iterator[bytes]:
    """The lines, each with its LF, of a binary list.

    Raises: PermFail when it is none.
    """
    *commands, rest = binary.split(b"\0")
    if rest:
        raise _bad_format()
    for command in commands:
        is_known = command[:1] in (b"&", b".", b"/")
        if not is_known or b"\n" in command or command[-1:] in (b" ", b"\t"):
            raise _bad_format()
        if command[:1] == b"&" and len(command) >= COMMAND_MAX:
            raise _bad_format()
        yield command + b"\n"


def _bad_format() -> PermFail:
    return PermFail("bad mailing list format")
