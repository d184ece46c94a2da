"""Tokens, fields and headers: tables in both directions, and any bytes at all."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsend.core.addresslist import AddressList, Tokens, rewrite_list
from qsend.core.errors import PermFail
from qsend.core.tokens import AT, COMMA, DOT, MARKS, Kind, Token, address_bytes
from qsend.formats import rfc822
from qsend.formats.rfc822 import (
    field_label,
    parse_field,
    read_header,
    render_field,
    tokenize,
)


def atom(text: bytes) -> Token:
    return Token(kind=Kind.ATOM, text=text)


def quoted(text: bytes) -> Token:
    return Token(kind=Kind.QUOTED, text=text)


def comment(text: bytes) -> Token:
    return Token(kind=Kind.COMMENT, text=text)


def literal(text: bytes) -> Token:
    return Token(kind=Kind.LITERAL, text=text)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"", ()),
        (b" \t\r\n", ()),
        (b"a@b.c", (atom(b"a"), AT, atom(b"b"), DOT, atom(b"c"))),
        (b'"a \\"b\\\\ c"', (quoted(b'a "b\\ c'),)),
        (b'""', (quoted(b""),)),
        (b"[1.2]", (literal(b"1.2"),)),
        (b"[]", (literal(b""),)),
        (b"[a\\]b]", (literal(b"a]b"),)),
        (b"(a (b) c)", (comment(b"a b c"),)),
        (b"(a\\) \\(b)", (comment(b"a) (b"),)),
        (b"()", (comment(b""),)),
        (b"<,>:;.", tuple(MARKS[bytes([byte])] for byte in b"<,>:;.")),
        (b"a\\,b", (quoted(b"a,b"),)),
        (b"a\\ b", (quoted(b"a b"),)),
        (b"\\ab", (atom(b"ab"),)),
        (b"a)b", (quoted(b"a)b"),)),
        (b"a]b", (quoted(b"a]b"),)),
        (b"a\x01", (quoted(b"a\x01"),)),
        (b"a\x7f", (quoted(b"a\x7f"),)),
        (b"\xff", (quoted(b"\xff"),)),
        ("jörg".encode(), (atom("jörg".encode()),)),
        (b"a(b)c", (atom(b"a"), comment(b"b"), atom(b"c"))),
        (b"=?UTF-8?q?J=C3?=", (atom(b"=?UTF-8?q?J=C3?="),)),
    ],
)
def test_tokenize_gives_tokens(text: bytes, want: tuple[Token, ...]) -> None:
    assert tokenize(text) == want


@pytest.mark.parametrize(
    "text",
    [
        *(b")", b"]", b"a )", b"(a", b"(a\\", b'"a', b'"a\\"', b"[a", b"[a\\]"),
        *(b"\\", b"a\\", b"a\0b", b'"a\nb"', b'"a\rb"', b"(\n)", b"[\0]"),
        b"a\\\nb",
    ],
)
def test_tokenize_refuses_what_has_no_end_or_could_start_a_line(text: bytes) -> None:
    with pytest.raises(PermFail):
        tokenize(text)


def test_tokenize_long_input_takes_linear_time() -> None:
    count = 50_000
    for text in (b"(" * count, b'"' + b"\\a" * count, b"a\\" * count + b"a"):
        try:
            tokens = tokenize(text)
        except PermFail:
            continue
        assert len(tokens) <= 1


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"", b"To:\n"),
        (b"a@b", b"To: a@b\n"),
        (b" a @ b . c ", b"To: a@b.c\n"),
        (b"Joe  Doe<a@b>", b"To: Joe Doe <a@b>\n"),
        (b"a,b,,c", b"To: a, b, , c\n"),
        (b"a,", b"To: a,\n"),
        (b"g:a,b;", b"To: g: a, b;\n"),
        (b'"x\\"[]()\\\\"', b'To: "x\\"\\[\\]\\(\\)\\\\"\n'),
        (b"a(b (c))", b"To: a (b c)\n"),
        (b"a@[1.2]", b"To: a@[1.2]\n"),
        (b"a)b", b'To: "a\\)b"\n'),
    ],
)
def test_render_field_spaces_and_quotes(text: bytes, want: bytes) -> None:
    assert render_field(b"To", tokenize(text)) == want


@pytest.mark.parametrize("length", [34, 35, 36, 37, 38])
def test_render_field_packs_while_a_line_has_room(length: int) -> None:
    tokens = (atom(b"a" * 37), COMMA, atom(b"b" * length), COMMA, atom(b"c"))
    packed = b"To: " + b"a" * 37 + b", " + b"b" * length + b","
    got = render_field(b"To", tokens)
    if len(packed) <= 78:
        assert got.split(b"\n")[0].startswith(packed)
    else:
        assert got == b"To: %b,\n  %b, c\n" % (b"a" * 37, b"b" * length)


def test_render_field_breaks_only_after_commas() -> None:
    hosts = b", ".join(b"user%d@host.example.org" % index for index in range(10))
    lines = render_field(b"Cc", tokenize(hosts)).splitlines()
    assert len(lines) > 2
    assert all(len(line) <= 78 for line in lines)
    assert all(line.endswith(b",") for line in lines[:-1])
    assert all(line[:2] == b"  " and line[2:3] != b" " for line in lines[1:])


def test_render_field_long_item_before_final_comma_leaves_no_blank_line() -> None:
    assert render_field(b"To", (atom(b"a" * 90), COMMA)) == b"To: %b,\n" % (b"a" * 90)


def same(address: Tokens) -> Tokens:
    return address


def read_list(text: bytes) -> AddressList:
    return rewrite_list(tokenize(text), same)


PIECES = [
    *(b"a", b"b+", b"x@h", b"<", b">", b",", b"@", b".", b":", b";", b" ", b"(c)"),
    *(b'"q s"', b'"\\"\\\\"', b"[1.2]", b"[]", b"<x@y>", b"g: a, b;", b"(n (m))"),
    *(b"\\,", b"\\ ", b"]", b"\x01", b"\xff", "ö".encode(), b"\t"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=15).map(b"".join))
def test_rendered_list_parses_to_the_same_addresses(text: bytes) -> None:
    try:
        found = read_list(text)
    except PermFail:
        return
    if not found.is_complete:
        return
    field = render_field(b"To", found.tokens)
    again = parse_field(field)
    assert again.is_parsed
    second = rewrite_list(again.tokens, same)
    assert second.is_complete
    assert second.addresses == found.addresses
    assert render_field(b"To", second.tokens) == field


@given(st.binary(max_size=200))
def test_any_bytes_give_tokens_or_a_refusal(text: bytes) -> None:
    try:
        tokens = tokenize(text)
    except PermFail:
        return
    found = rewrite_list(tokens, same)
    for address in (*found.addresses, address_bytes(tokens)):
        assert not set(address) & {0, 10, 13}
    field = render_field(b"To", found.tokens)
    assert field.endswith(b"\n")
    assert all(line.startswith(b"  ") for line in field.split(b"\n")[1:-1])


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (b"To: x", b"To"),
        (b"tO \t:", b"tO"),
        (b"a!~:b:c", b"a!~"),
        (b":x", None),
        (b" To: x", None),
        (b"T o: x", None),
        (b"To", None),
        (b"T\x7fo:", None),
        (b"T\xc3:", None),
        (b"", None),
    ],
)
def test_field_label_takes_printable_names(line: bytes, want: bytes | None) -> None:
    assert field_label(line) == want


def test_parse_field_unfolds_inside_quotes_and_comments() -> None:
    field = parse_field(b'CC :\r\n "a\n b"@h (c\r\n\td),\n e\n')
    assert (field.name, field.label, field.is_parsed) == (b"cc", b"CC", True)
    assert field.tokens == (
        quoted(b"a b"),
        AT,
        atom(b"h"),
        comment(b"c\td"),
        COMMA,
        atom(b"e"),
    )


@pytest.mark.parametrize(
    ("raw", "is_parsed"),
    [(b"Subject: (\n", True), (b"To: (\n", False), (b"To: a\0\n", False)],
)
def test_parse_field_tokenizes_only_addresses(raw: bytes, is_parsed: bool) -> None:
    field = parse_field(raw)
    assert (field.raw, field.tokens, field.is_parsed) == (raw, (), is_parsed)


HEADERS = [
    (b"", [], b""),
    (b"\n", [], b"\n"),
    (b"A: b\n\nbody", [b"A: b\n"], b"\n"),
    (b"A: b\n c\n\td\nB:\n\n", [b"A: b\n c\n\td\n", b"B:\n"], b"\n"),
    (b"A: b", [b"A: b\n"], b""),
    (b"A: b\n c", [b"A: b\n c\n"], b""),
    (b"From x y\nA: b\n", [b"MBOX-Line: From x y\n", b"A: b\n"], b""),
    (b"From x\n y\n\n", [b"MBOX-Line: From x\n y\n"], b"\n"),
    (b"A: b\nbogus line\nC: d\n", [b"A: b\n"], b"\nbogus line\n"),
    (b" A: b\n", [], b"\n A: b\n"),
    (b"A: b\nbogus", [b"A: b\n"], b"\nbogus"),
    (b"A: b\r\n\r\nx", [b"A: b\r\n"], b"\n\r\n"),
    (b">From x\n", [], b"\n>From x\n"),
]


@pytest.mark.parametrize("cut", [2, 3, 4, 65536])
@pytest.mark.parametrize(("message", "fields", "start"), HEADERS)
def test_read_header_splits_however_bytes_arrive(
    message: bytes, fields: list[bytes], start: bytes, cut: int
) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=cut) as file:
        os.write(writer, message)
        os.close(writer)
        assert read_header(file.readline) == (fields, start)


def limited(text: bytes) -> Callable[[int], bytes]:
    return io.BytesIO(text).readline


@pytest.mark.parametrize(
    "text", [b"A: " + b"x" * 2000, b"A: b\n" + b" c\n" * 60, b"A: b\n" * 30]
)
def test_read_header_too_long_is_refused(
    text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rfc822, "HEADER_MAX", 100)
    with pytest.raises(PermFail, match="longer than 100"):
        read_header(limited(text))


def test_read_header_endless_body_line_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rfc822, "HEADER_MAX", 100)
    file = io.BytesIO(b"A: b\n" + b"x" * 5000)
    fields, start = read_header(file.readline)
    assert fields == [b"A: b\n"]
    assert start + file.read() == b"\n" + b"x" * 5000
    assert len(start) < 1200


def test_read_header_of_exactly_the_limit_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rfc822, "HEADER_MAX", 10)
    assert read_header(limited(b"A: 345678\n\n")) == ([b"A: 345678\n"], b"\n")
