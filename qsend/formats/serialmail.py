"""Messages as qmail-local leaves them in a maildir, and results of serial clients.

The first two lines, Return-Path and Delivered-To, are the envelope. A client says
`<file name>NUL<letter><text>LF` for each message, letter K, Z or D.
Source: maildirserial(1), serialsmtp(1), maildirserial.c, serialsmtp.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import Letter

HEAD_MAX = 8192
"""Longest Return-Path and Delivered-To line together: two addresses of 1002 bytes,
one of them quoted, need less than half of it."""
TEXT_MAX = 2000
"""Bytes of a result, with its letter; the rest is cut (serialsmtp.c)."""
NAME_MAX = 4096
"""Longest file name of a result (PATH_MAX)."""

_RETURN_PATH = b"Return-Path: <"
_DELIVERED_TO = b"Delivered-To: "
_LETTERS = {b"K": Letter.SUCCESS, b"D": Letter.FAILURE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The envelope in front of a message; `length` is that of the two lines.

    `sender` is without the quotes that qmail-local puts around a local part that
    needs them; `recip` is raw, its prefix included.
    """

    sender: bytes
    recip: bytes
    length: int


def parse_head(content: bytes) -> Head | None:
    """The envelope of a message of which `content` is the beginning.

    None when there is none: other lines, or lines longer than HEAD_MAX.
    Args:
        content: HEAD_MAX bytes, or the whole message if it is shorter.
    """
    first, end_of_first, rest = content.partition(b"\n")
    second, end_of_second, _ = rest.partition(b"\n")
    if not end_of_first or not end_of_second or b"\0" in first:
        return None
    if not first.startswith(_RETURN_PATH) or not first.endswith(b">"):
        return None
    if not second.startswith(_DELIVERED_TO):
        return None
    return Head(
        sender=unquote(first[len(_RETURN_PATH) : -1]),
        recip=second[len(_DELIVERED_TO) :],
        length=len(first) + len(second) + 2,
    )


def parse_recip(content: bytes) -> bytes | None:
    """The recipient in the second line, whatever the first one is."""
    lines = content.split(b"\n", 2)
    if len(lines) < 3 or not lines[1].startswith(_DELIVERED_TO):
        return None
    return lines[1][len(_DELIVERED_TO) :]


def unquote(address: bytes) -> bytes:
    r"""An address without the quotes of its local part: `"a b"@c` is `a b@c`.

    What is not quoted as core.address.quote does is returned as it is.
    """
    quoted, at, domain = address.rpartition(b'"@')
    if not at or not quoted.startswith(b'"'):
        return address
    local = bytearray()
    is_escaped = False
    for byte in quoted[1:]:
        if byte == 0x5C and not is_escaped:
            is_escaped = True
            continue
        if byte == 0x22 and not is_escaped:
            return address
        local.append(byte)
        is_escaped = False
    return address if is_escaped else bytes(local) + b"@" + domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a client says of one message; `text` is one line with its LF."""

    name: bytes
    letter: Letter
    text: bytes


def render_result(result: Result) -> bytes:
    """The line for standard output: cut to TEXT_MAX, other than printable as `?`."""
    line = (result.letter.value + result.text.rstrip(b"\n"))[:TEXT_MAX]
    safe = bytes(byte if 32 <= byte <= 126 else 0x3F for byte in line)
    return result.name + b"\0" + safe + b"\n"


class ResultReader:
    """Cuts results out of what a client writes, however it is cut."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Result]:
        """The results that are complete by now; any letter but K and D is Z.

        Raises: RemoteProtocolError when a client writes something else without end.
        """
        self._buffer += data
        found = []
        while True:
            name, nul, rest = self._buffer.partition(b"\0")
            line, lf, rest = rest.partition(b"\n")
            if not nul or not lf:
                break
            found.append(
                Result(
                    name=name,
                    letter=_LETTERS.get(line[:1], Letter.DEFERRAL),
                    text=line[1:] + b"\n",
                )
            )
            self._buffer = rest
        if len(name) > NAME_MAX or len(self._buffer) > NAME_MAX + 16 * TEXT_MAX:
            raise RemoteProtocolError("client writes no results")
        return found
