r"""The message that asks the DNS a question, written without dnspython.

dnspython takes 25 times as long for these 30 bytes (docs/PERFORMANCE.md). What
comes back is its to read: here are only the fields in front of a reply, to see
which question it answers and to leave off what nobody needs.
Source: RFC 1035 3.1, 4.1.
"""

from __future__ import annotations

import struct

_HEADER = struct.Struct("!HHHHHH")
"""Number, flags, then how many questions, answers, authorities, additional records."""
_QUESTION_END = struct.Struct("!HH")
_RECURSE = 0x0100
_RESPONSE_MASK, _RESPONSE = 0xF800, 0x8000
"""Of the flags: a response, to a standard query."""
_CUT_OR_CODE_MASK = 0x020F
_IN = 1
_LABEL_END = 64
_NAME_MAX = 255


def render_question(number: int, name: bytes, kind: int) -> bytes | None:
    """The message that asks for the records of `name`; None when no such name can be.

    Args:
        number: 16 bits that a forger cannot know.
        name: labels joined by dots, with or without the final one, raw bytes.
        kind: the type of the records, as RFC 1035 numbers them.
    """
    labels = name.removesuffix(b".").split(b".")
    if not all(0 < len(label) < _LABEL_END for label in labels):
        return None
    wire = b"".join([bytes((len(label),)) + label for label in labels]) + b"\0"
    if len(wire) > _NAME_MAX:
        return None
    header = _HEADER.pack(number, _RECURSE, 1, 0, 0, 0)
    return header + wire + _QUESTION_END.pack(kind, _IN)


def has_number_of(reply: bytes, question: bytes) -> bool:
    """Whether it may answer: a response with the question's number.

    Cheap, for what forgers send; `repeats` or dnspython has to look at the rest.
    """
    if len(reply) < _HEADER.size or reply[:2] != question[:2]:
        return False
    flags: int = _HEADER.unpack_from(reply)[1]
    return flags & _RESPONSE_MASK == _RESPONSE


def repeats(reply: bytes, question: bytes) -> bool:
    """Whether the one question in a reply is this one, byte for byte.

    Where it is not the reply may still answer: in other spelling, or without any.
    """
    is_alone: bool = _HEADER.unpack_from(reply)[2] == 1
    return is_alone and reply[_HEADER.size : len(question)] == question[_HEADER.size :]


def answers_alone(reply: bytes) -> bytes | None:
    """A reply that says it has only its questions and answers; more bytes follow.

    None of one that is cut, an error, or has no answers: what it says is elsewhere.
    """
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(reply)
    if flags & _CUT_OR_CODE_MASK or not answers:
        return None
    header = _HEADER.pack(number, flags, questions, answers, 0, 0)
    return header + reply[_HEADER.size :]
