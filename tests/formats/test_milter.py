from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
)
from qsend.formats.milter import (
    PACKET_MAX,
    PacketReader,
    parse_answer,
    parse_terms,
    render,
    render_offer,
)


def packet(letter: bytes, data: bytes = b"") -> bytes:
    return struct.pack("!L", len(data) + 1) + letter + data


@pytest.mark.parametrize(
    ("say", "wire"),
    [
        (
            Say(
                stage=Stage.CONNECT,
                connection=Connection(host=b"a.example", address="192.0.2.1", port=25),
                macros={b"j": b"here"},
            ),
            packet(b"D", b"Cj\0here\0")
            + packet(b"C", b"a.example\x004\x00\x19192.0.2.1\0"),
        ),
        (
            Say(
                stage=Stage.CONNECT,
                connection=Connection(host=b"[::1]", address="::1", port=258),
            ),
            packet(b"C", b"[::1]\x006\x01\x02::1\0"),
        ),
        (Say(stage=Stage.HELO, words=(b"x",)), packet(b"H", b"x\0")),
        (
            Say(stage=Stage.MAIL, words=(b"<a@b>", b"SIZE=1")),
            packet(b"M", b"<a@b>\0SIZE=1\0"),
        ),
        (Say(stage=Stage.HEADER, words=(b"A", b"b\0c")), packet(b"L", b"A\0bc\0")),
        (Say(stage=Stage.BODY, words=(b"a\0b",)), packet(b"B", b"a\0b")),
        (Say(stage=Stage.END), packet(b"E")),
        (
            Say(stage=Stage.HELO, words=(b"x",), macros={b"v": b"1"}, is_told=False),
            packet(b"D", b"Hv\x001\0"),
        ),
    ],
)
def test_what_is_said(say: Say, wire: bytes) -> None:
    assert render(say) == wire


ANSWERS: list[tuple[bytes, bytes, Heard]] = [
    (b"c", b"", Answer.CONTINUE),
    (b"a", b"", Answer.ACCEPT),
    (b"r", b"", Answer.REJECT),
    (b"t", b"", Answer.TEMPFAIL),
    (b"d", b"", Answer.DISCARD),
    (b"s", b"", Answer.SKIP),
    (b"4", b"", Answer.SHUTDOWN),
    (b"p", b"", Answer.PROGRESS),
    (b"y", b"550 no\0", Reply(text=b"550 no")),
    (b"h", b"A\0b\0", AddField(name=b"A", value=b"b")),
    (b"i", b"\0\0\0\1A\0\0", InsertField(index=1, name=b"A", value=b"")),
    (b"m", b"\0\0\0\0A\0b\0", ChangeField(index=1, name=b"A", value=b"b")),
    (b"b", b"x\0y", NewBody(data=b"x\0y")),
    (b"+", b"<a@b>\0", AddRecipient(address=b"<a@b>")),
    (b"2", b"<a@b>\0X=1\0", AddRecipient(address=b"<a@b>", has_parameters=True)),
    (b"-", b"<a@b>\0", RemoveRecipient(address=b"<a@b>")),
    (b"e", b"<a@b>\0", NewSender(address=b"<a@b>")),
    (b"e", b"<a@b>\0X=1\0", NewSender(address=b"<a@b>")),
    (b"q", b"why\0", Quarantine(reason=b"why")),
]


def take_all(reader: PacketReader) -> list[Heard]:
    found = []
    while (each := reader.take()) is not None:
        found.append(parse_answer(*each))
    return found


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])
def test_answers_however_they_are_cut(step: int) -> None:
    wire = b"".join(packet(letter, data) for letter, data, _ in ANSWERS)
    reader = PacketReader()
    found = []
    for at in range(0, len(wire), step):
        reader.feed(wire[at : at + step])
        found += take_all(reader)
    assert found == [answer for _, _, answer in ANSWERS]
    assert not reader.is_ahead


@pytest.mark.parametrize(
    ("letter", "data"),
    [
        (b"c", b"x"),
        (b"Z", b""),
        (b"f", b""),
        (b"y", b"550 no"),
        (b"y", b"a\0b\0"),
        (b"h", b"A\0"),
        (b"h", b"A\0b\0c\0"),
        (b"i", b"\0\0\0"),
        (b"i", b"\xff\xff\xff\xffA\0b\0"),
        (b"m", b"\0\0\0\1A\0b"),
        (b"+", b""),
        (b"2", b"a\0b\0c\0"),
        (b"q", b""),
    ],
)
def test_answer_that_is_none(letter: bytes, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_answer(letter, data)


@pytest.mark.parametrize("length", [0, PACKET_MAX + 1, 0xFFFFFFFF])
def test_length_is_bounded(length: int) -> None:
    reader = PacketReader()
    reader.feed(struct.pack("!L", length))
    with pytest.raises(RemoteProtocolError):
        reader.take()


def terms(version: int, actions: int, steps: int, rest: bytes = b"") -> bytes:
    return struct.pack("!LLL", version, actions, steps) + rest


def test_offer_and_terms() -> None:
    assert render_offer() == packet(b"O", terms(6, 0x1FF, 0x1FF7FF))
    lists = b"\0\0\0\3{rcpt_addr} i\0\0\0\0\5i\0"
    agreed = parse_terms(terms(6, 0x21, 0x100043 | 0x80, lists))
    assert agreed.actions == Actions.ADD_FIELDS | Actions.QUARANTINE
    assert agreed.omitted == {Stage.CONNECT, Stage.HELO, Stage.END_OF_HEADER}
    assert agreed.silent == {Stage.HEADER}
    assert agreed.keeps_space
    assert agreed.macros == {
        Stage.RCPT: frozenset({b"{rcpt_addr}", b"i"}),
        Stage.END: frozenset({b"i"}),
    }


def test_old_filters_do_not_hear_of_data() -> None:
    assert parse_terms(terms(2, 1, 0)).omitted == {Stage.DATA}
    assert parse_terms(terms(4, 1, 0)).omitted == frozenset()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        terms(6, 0, 0)[:-1],
        terms(1, 0, 0),
        terms(7, 0, 0),
        terms(6, 0x200, 0),
        terms(6, 0, 0, b"\0\0\0\x07i\0"),
        terms(6, 0, 0, b"\0\0\0\0i"),
        terms(6, 0, 0, b"\0\0"),
    ],
)
def test_terms_that_are_none(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_terms(data)


@given(st.binary(max_size=200))
def test_garbage_is_an_answer_or_an_error(data: bytes) -> None:
    reader = PacketReader()
    reader.feed(data)
    try:
        take_all(reader)
        parse_terms(data)
    except RemoteProtocolError:
        return
