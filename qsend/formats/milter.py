r"""The wire to mail filters: u32 length, a letter, and so many bytes less one.

    >>> reader = PacketReader()
    >>> reader.feed(b"\0\0\0\1c")
    >>> parse_answer(*reader.take())
    <Answer.CONTINUE: 1>

Versions 2 to 6 are spoken. Must not: know what may be said when (core/milter.py).
Source: libmilter's mfdef.h, comm.c, engine.c; Postfix's milter8.c.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Mapping

from qsend.core.errors import RemoteProtocolError
from qsend.core.milterwords import (
    Actions,
    AddField,
    AddRecipient,
    Answer,
    ChangeField,
    Connection,
    Heard,
    InsertField,
    NewBody,
    NewSender,
    Quarantine,
    RemoveRecipient,
    Reply,
    Say,
    Stage,
    Terms,
)

NEGOTIATE = b"O"
_MACROS = b"D"
VERSION_MIN, VERSION = 2, 6
CHUNK_MAX = 65535
"""Bytes of a body in one packet (MILTER_CHUNK_SIZE)."""
PACKET_MAX = 1 << 20
"""Longest packet taken from a filter: room for a field of a megabyte."""

_ACTIONS = Actions(0x1FF)
_OMITTING: Mapping[Stage, int] = {
    Stage.CONNECT: 0x1,
    Stage.HELO: 0x2,
    Stage.MAIL: 0x4,
    Stage.RCPT: 0x8,
    Stage.BODY: 0x10,
    Stage.HEADER: 0x20,
    Stage.END_OF_HEADER: 0x40,
    Stage.DATA: 0x200,
}
_SILENCING: Mapping[Stage, int] = {
    Stage.HEADER: 0x80,
    Stage.CONNECT: 0x1000,
    Stage.HELO: 0x2000,
    Stage.MAIL: 0x4000,
    Stage.RCPT: 0x8000,
    Stage.DATA: 0x10000,
    Stage.END_OF_HEADER: 0x40000,
    Stage.BODY: 0x80000,
}
_NO_UNKNOWN, _NO_UNKNOWN_ANSWER, _SKIP, _LEADING_SPACE = 0x100, 0x20000, 0x400, 0x100000
_OFFERED = (
    sum(_OMITTING.values())
    | sum(_SILENCING.values())
    | _NO_UNKNOWN
    | _NO_UNKNOWN_ANSWER
    | _SKIP
    | _LEADING_SPACE
)
_DATA_SINCE = 4
_MACRO_STAGES = (
    Stage.CONNECT,
    Stage.HELO,
    Stage.MAIL,
    Stage.RCPT,
    Stage.DATA,
    Stage.END,
    Stage.END_OF_HEADER,
)
"""In the order of their numbers in a list of macros."""
_U32 = struct.Struct("!L")
_NEGOTIATION = struct.Struct("!LLL")


def _packet(letter: bytes, data: bytes) -> bytes:
    return _U32.pack(len(data) + 1) + letter + data


def _strings(words: tuple[bytes, ...]) -> bytes:
    return b"".join(word.replace(b"\0", b"") + b"\0" for word in words)


def render_offer() -> bytes:
    """The first packet: all that we can."""
    return _packet(NEGOTIATE, _NEGOTIATION.pack(VERSION, _ACTIONS.value, _OFFERED))


def parse_terms(data: bytes) -> Terms:
    """What the filter makes of the offer. Raises: RemoteProtocolError."""
    if len(data) < _NEGOTIATION.size:
        raise RemoteProtocolError("negotiation too short")
    version, actions, steps = _NEGOTIATION.unpack_from(data)
    if not VERSION_MIN <= version <= VERSION:
        raise RemoteProtocolError(f"version {version}")
    if actions & ~_ACTIONS.value:
        raise RemoteProtocolError(f"unknown actions {actions:#x}")
    omitted = {stage for stage, bit in _OMITTING.items() if steps & bit}
    if version < _DATA_SINCE:
        omitted.add(Stage.DATA)
    return Terms(
        version=version,
        actions=Actions(actions),
        omitted=frozenset(omitted),
        silent=frozenset(stage for stage, bit in _SILENCING.items() if steps & bit),
        keeps_space=bool(steps & _LEADING_SPACE),
        macros=_macro_lists(data[_NEGOTIATION.size :]),
    )


def _macro_lists(data: bytes) -> dict[Stage, frozenset[bytes]]:
    found = {}
    while data:
        number, rest = _number(data)
        names, nul, data = rest.partition(b"\0")
        if not nul or number >= len(_MACRO_STAGES):
            raise RemoteProtocolError("list of macros")
        found[_MACRO_STAGES[number]] = frozenset(names.replace(b",", b" ").split())
    return found


def render(say: Say) -> bytes:
    """The packets that say it, macros first."""
    packets = b""
    if say.macros:
        pairs = (word for pair in say.macros.items() for word in pair)
        packets = _packet(_MACROS, say.stage.value + _strings(tuple(pairs)))
    if not say.is_told:
        return packets
    if say.connection is not None:
        data = _connection(say.connection)
    elif say.stage is Stage.BODY:
        data = b"".join(say.words)
    else:
        data = _strings(say.words)
    return packets + _packet(say.stage.value, data)


def _connection(client: Connection) -> bytes:
    is_v4 = ipaddress.ip_address(client.address).version == 4
    family = b"4" if is_v4 else b"6"
    port = struct.pack("!H", client.port)
    return (
        _strings((client.host,)) + family + port + _strings((client.address.encode(),))
    )


class PacketReader:
    """Cuts packets out of what a filter sends, however it is cut.

    Memory is bounded by PACKET_MAX and one piece.
    """

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what the filter sent."""
        self._data += data

    @property
    def is_ahead(self) -> bool:
        """Whether there is more than the packets taken."""
        return bool(self._data)

    def take(self) -> tuple[bytes, bytes] | None:
        """Letter and bytes of the next packet, or None: more is needed.

        Raises: RemoteProtocolError; the filter is to be dropped.
        """
        if len(self._data) < _U32.size:
            return None
        (length,) = _U32.unpack_from(self._data)
        if not 0 < length <= PACKET_MAX:
            raise RemoteProtocolError(f"packet of {length} bytes")
        end = _U32.size + length
        if len(self._data) < end:
            return None
        body = bytes(self._data[_U32.size : end])
        del self._data[:end]
        return body[:1], body[1:]


def parse_answer(letter: bytes, data: bytes) -> Heard:
    """What a packet means. Raises: RemoteProtocolError."""
    plain = _ANSWERS.get(letter)
    if plain is not None:
        if data:
            raise RemoteProtocolError(f"answer {letter!r} with more to it")
        return plain
    parse = _PARSERS.get(letter)
    if parse is None:
        raise RemoteProtocolError(f"unknown answer {letter!r}")
    return parse(data)


def _number(data: bytes) -> tuple[int, bytes]:
    if len(data) < _U32.size:
        raise RemoteProtocolError("expected a number")
    return _U32.unpack_from(data)[0], data[_U32.size :]


def _words(data: bytes, least: int, most: int) -> list[bytes]:
    """The strings that make up all of `data`."""
    words = data.split(b"\0", most)
    if words.pop() or not least <= len(words) <= most:
        raise RemoteProtocolError("expected strings that end in NUL")
    return words


def _indexed(data: bytes) -> tuple[int, bytes, bytes]:
    index, rest = _number(data)
    if index >= 1 << 31:
        raise RemoteProtocolError("index below 0")
    name, value = _words(rest, 2, 2)
    return index, name, value


def _parse_add(data: bytes) -> Heard:
    name, value = _words(data, 2, 2)
    return AddField(name=name, value=value)


def _parse_insert(data: bytes) -> Heard:
    index, name, value = _indexed(data)
    return InsertField(index=index, name=name, value=value)


def _parse_change(data: bytes) -> Heard:
    index, name, value = _indexed(data)
    # 0 stands for the first, too (sendmail).
    return ChangeField(index=max(1, index), name=name, value=value)


_ANSWERS = {
    b"c": Answer.CONTINUE,
    b"a": Answer.ACCEPT,
    b"r": Answer.REJECT,
    b"t": Answer.TEMPFAIL,
    b"d": Answer.DISCARD,
    b"s": Answer.SKIP,
    b"4": Answer.SHUTDOWN,
    b"p": Answer.PROGRESS,
}
_PARSERS: Mapping[bytes, Callable[[bytes], Heard]] = {
    b"y": lambda data: Reply(text=_words(data, 1, 1)[0]),
    b"h": _parse_add,
    b"i": _parse_insert,
    b"m": _parse_change,
    b"b": lambda data: NewBody(data=data),
    b"+": lambda data: AddRecipient(address=_words(data, 1, 1)[0]),
    b"2": lambda data: AddRecipient(address=_words(data, 1, 2)[0], has_parameters=True),
    b"-": lambda data: RemoveRecipient(address=_words(data, 1, 1)[0]),
    b"e": lambda data: NewSender(address=_words(data, 1, 2)[0]),
    b"q": lambda data: Quarantine(reason=_words(data, 1, 1)[0]),
}
