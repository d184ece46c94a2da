"""Envelopes in front of messages, results of clients, RELAYHOST."""

from __future__ import annotations

import pytest

from qsend.core.address import quote
from qsend.core.errors import PermFail, RemoteProtocolError
from qsend.core.model import Letter
from qsend.formats.relayhost import parse_relayhost
from qsend.formats.serialmail import (
    NAME_MAX,
    TEXT_MAX,
    Result,
    ResultReader,
    parse_head,
    parse_recip,
    render_result,
    unquote,
)

HEAD = b"Return-Path: <s@x>\nDelivered-To: pre-r@y\n"


def test_head_is_the_two_lines_of_qmail_local() -> None:
    head = parse_head(HEAD + b"Subject: x\n")
    assert head is not None
    assert (head.sender, head.recip, head.length) == (b"s@x", b"pre-r@y", len(HEAD))


@pytest.mark.parametrize(
    ("content", "recip"),
    [
        (b"", None),
        (HEAD[:-1], None),
        (b"Return-Path: <s@x\nDelivered-To: r@y\n", b"r@y"),
        (b"return-path: <s@x>\nDelivered-To: r@y\n", b"r@y"),
        (b"Return-Path: <s\0@x>\nDelivered-To: r@y\n", b"r@y"),
        (b"Return-Path: <s@x>\nSubject: x\nDelivered-To: r@y\n", None),
        (b"Return-Path: <s@x>\ndelivered-to: r@y\n", None),
        (b"Delivered-To: r@y\nReturn-Path: <s@x>\n", None),
    ],
)
def test_other_beginnings_are_no_head(content: bytes, recip: bytes | None) -> None:
    assert parse_head(content) is None
    assert parse_recip(content) == recip


@pytest.mark.parametrize(
    ("quoted", "want"),
    [
        (b"", b""),
        (b"a@b", b"a@b"),
        (b'"a b"@c', b"a b@c"),
        (b'"a\\"b\\\\"@c', b'a"b\\@c'),
        (b'"a"b"@c', b'"a"b"@c'),
        (b'"a\\"@c', b'"a\\"@c'),
        (b'"a b"', b'"a b"'),
        (b'a"@c', b'a"@c'),
        (b'"a@b"@c', b"a@b@c"),
        (b"#@[]", b"#@[]"),
    ],
)
def test_unquote(quoted: bytes, want: bytes) -> None:
    assert unquote(quoted) == want


@pytest.mark.parametrize(
    "address",
    [b"a@b", b"a b@c", b'a"b@c', b"a\\b@c", b"..@c", b"@c", b'"a b"@c', b"\xe4@b", b""],
)
def test_unquote_takes_off_what_qmail_local_puts_on(address: bytes) -> None:
    assert unquote(quote(address)) == address


RESULTS = [
    Result(name=b"new/1", letter=Letter.SUCCESS, text=b"250 ok\n"),
    Result(name=b"cur/2:2,S", letter=Letter.DEFERRAL, text=b"\n"),
    Result(name=b"new/3", letter=Letter.FAILURE, text=b"550 no\n"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_results_come_back_however_they_are_cut(size: int) -> None:
    wire = b"".join(map(render_result, RESULTS))
    reader, found = ResultReader(), []
    for at in range(0, len(wire), size):
        found += reader.feed(wire[at : at + size])
    assert found == RESULTS


@pytest.mark.parametrize("text", [b"n\0x later\n", b"n\0\n"])
def test_other_letters_are_temporary(text: bytes) -> None:
    (result,) = ResultReader().feed(text)
    assert result.letter is Letter.DEFERRAL


def test_half_a_result_is_none() -> None:
    assert ResultReader().feed(b"new/1\0Kthank") == []


@pytest.mark.parametrize("piece", [b"x" * 100, b"n\0" + b"x" * 100])
def test_endless_output_is_refused_in_bounded_memory(piece: bytes) -> None:
    reader = ResultReader()

    def feed_all() -> None:
        for _ in range((NAME_MAX + 17 * TEXT_MAX) // 10):
            reader.feed(piece)

    with pytest.raises(RemoteProtocolError, match="no results"):
        feed_all()


def test_result_is_one_printable_line_of_bounded_length() -> None:
    text = b"250 \tth\x80nks\x7f" + b"x" * 5000 + b"\n"
    line = render_result(Result(name=b"n", letter=Letter.SUCCESS, text=text))
    assert line.startswith(b"n\0K250 ?th?nks?x")
    assert len(line) == len(b"n\0\n") + TEXT_MAX


@pytest.mark.parametrize(
    ("content", "host", "port"),
    [
        (b"some.example.com\n", b"some.example.com", None),
        (b"# comment\n\n  host:2525 \nmore\n", b"host", 2525),
        (b"192.0.2.1", b"192.0.2.1", None),
        (b"[192.0.2.1]:26\n", b"192.0.2.1", 26),
        (b"[2001:db8::1]:26\n", b"2001:db8::1", 26),
        (b"2001:db8::1\n", b"2001:db8::1", None),
    ],
)
def test_relayhost(content: bytes, host: bytes, port: int | None) -> None:
    found = parse_relayhost(content)
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# only\n",
        b"a b\n",
        b"host:0\n",
        b"host:65536\n",
        b"host:\n",
        b"h;x\n",
        b"x" * 256,
        b"root:$6$secret:1:\n",
    ],
)
def test_relayhost_that_names_no_host_is_refused_without_repeating_it(
    content: bytes,
) -> None:
    with pytest.raises(PermFail, match=r"^RELAYHOST names no host") as caught:
        parse_relayhost(content)
    assert "secret" not in str(caught.value)
