r"""A question, and the plain reply to one for MX or A records: most of all replies.

dnspython reads every reply there is, and takes a fifth of the time of a remote process
for it where each message has a domain of its own. This reads those alone in which
every answer belongs to the name that was asked for, and leaves all others to it:
aliases, errors, cut ones, names in other spelling, and whatever is not as it should be.
Source: RFC 1035 3.2, 3.3.9, 3.4.1, 4.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

A, MX = 1, 15
RECORDS_MAX = 100
"""More answers than this are not plain."""

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHHIH")
"""Owner (a pointer), type, class, TTL, length of the data."""
_NUMBER = struct.Struct("!H")
_OWNER = 0xC00C
"""A pointer to the question's name, right behind the header."""
_IN = 1
_FLAGS_MASK = 0xFA0F
"""Of the header's second word: response, opcode, truncated, and the code."""
_RESPONSE = 0x8000
_TTL_MAX = 2**31 - 1
_NAME_MAX = 255
_LABEL_END = 64
_RECURSE = 0x0100
"""The header's second word of a question."""
_QUESTION_END = struct.Struct("!HH")
_POINTER = 0xC0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """What was found; names without their final dot, raw bytes.

    `ttl_s` is the least of all answers. `addresses` are IPv4, as text.
    """

    mx: tuple[tuple[int, bytes], ...] = ()
    addresses: tuple[str, ...] = ()
    ttl_s: int


def render_question(number: int, name: bytes, kind: int) -> bytes | None:
    """The message that asks for the records of `name`; None when there is no such name.

    Args:
        number: 16 bits that a forger cannot know.
        name: labels joined by dots, with or without the final one, raw bytes.
    """
    labels = name.removesuffix(b".").split(b".")
    if not all(0 < len(label) < _LABEL_END for label in labels):
        return None
    wire = b"".join([bytes((len(label),)) + label for label in labels]) + b"\0"
    if len(wire) > _NAME_MAX:
        return None
    header = _HEADER.pack(number, _RECURSE, 1, 0, 0, 0)
    return header + wire + _QUESTION_END.pack(kind, _IN)


def read_plain(wire: bytes, question: bytes) -> Plain | None:
    """The answers in a plain reply; None for any other.

    What follows the answers is not looked at.

    Args:
        wire: a datagram.
        question: the message that was sent: a header, and the question alone.
    Raises: nothing.
    """
    try:
        return _read(wire, question)
    except (struct.error, IndexError):
        return None  # it ends too early


def _read(wire: bytes, question: bytes) -> Plain | None:
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(wire)
    at = len(question)
    if (
        number != _NUMBER.unpack_from(question)[0]
        or flags & _FLAGS_MASK != _RESPONSE
        or questions != 1
        or not 0 < answers <= RECORDS_MAX
        or wire[_HEADER.size : at] != question[_HEADER.size :]
    ):
        return None
    kind = _NUMBER.unpack_from(question, at - 4)[0]
    least = _TTL_MAX
    # As keys: a record that comes twice counts once.
    mx: dict[tuple[int, bytes], tuple[int, bytes]] = {}
    addresses: dict[str, None] = {}
    for _ in range(answers):
        owner, found, network, ttl_s, length = _RECORD.unpack_from(wire, at)
        at += _RECORD.size
        if (owner, found, network) != (_OWNER, kind, _IN):
            return None
        if ttl_s > _TTL_MAX or at + length > len(wire):
            return None
        least = min(least, ttl_s)
        if kind == A and length == 4:
            addresses[".".join(map(str, wire[at : at + 4]))] = None
        elif kind == MX:
            name = _name(wire, at + 2, at + length)
            if name is None:
                return None
            preference = _NUMBER.unpack_from(wire, at)[0]
            mx.setdefault((preference, name.lower()), (preference, name))
        else:
            return None
        at += length
    return Plain(mx=tuple(mx.values()), addresses=tuple(addresses), ttl_s=least)


def _name(wire: bytes, at: int, end: int) -> bytes | None:
    """The name that fills the bytes from `at` to `end`; None for one that does not."""
    labels: list[bytes] = []
    size = 1
    start = at
    after = -1
    while length := wire[at]:
        if length >= _POINTER:
            target = _NUMBER.unpack_from(wire, at)[0] & 0x3FFF
            if target >= start:
                return None  # only back, so that it ends
            if after < 0:
                after = at + 2
            at = start = target
        elif length >= _LABEL_END or (size := size + 1 + length) > _NAME_MAX:
            return None
        else:
            labels.append(wire[at + 1 : at + 1 + length])
            at += 1 + length
    return b".".join(labels) if (at + 1 if after < 0 else after) == end else None
