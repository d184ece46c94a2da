from __future__ import annotations

import io

import cdblib
import pytest

from qsend.core.errors import PermFail
from qsend.formats.aliases import ADDRESS_MAX
from qsend.formats.forwardtable import parse_table, read_records, render_record


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"", []),
        (b"# nothing", []),
        (b"A@B.c: d@e;", [(b":a@b.c", b"&d@e\0")]),
        (b"a@b:&d@e,f@g;", [(b":a@b", b"&d@e\0&f@g\0")]),
        (b"a b : c d ;", [(b":ab", b"&cd\0")]),
        (b"a\\ b: c\\,\\;\\:\\#\\\\;", [(b":a b", b"&c,;:#\\\0")]),
        (b"a: x # , y;\n, z;", [(b":a", b"&x\0&z\0")]),
        (b"a:|p\\ q,!r,./l,/m;", [(b":a", b"|p q\0!r\0./l\0/m\0")]),
        (b"a: x, ?own@b, y;", [(b"?a", b"own@b"), (b":a", b"&x\0&y\0")]),
        (b"A: ?Own;", [(b"?a", b"Own")]),
        (b"a:;b:,;c:,,x,;", [(b":c", b"&x\0")]),
        (b"a: x\\\n;", [(b":a", b"&x\n\0")]),
        (b":x;", [(b":", b"&x\0")]),
        (b"a:x;b:y;\\", [(b":a", b"&x\0"), (b":b", b"&y\0")]),
    ],
)
def test_table_source(text: bytes, want: list[tuple[bytes, bytes]]) -> None:
    assert list(parse_table(text)) == want


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: b", "semicolon"),
        (b"a: b,", "semicolon"),
        (b"a", "semicolon"),
        (b"a: b; c", "semicolon"),
        (b"a: b: c;", "double colons"),
        (b"a, b: c;", "commas"),
        (b"a;", "commas"),
        (b"a: \0;", "NUL"),
        (b"a: " + b"x" * (ADDRESS_MAX + 1) + b";", "800"),
    ],
)
def test_wrong_syntax_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(PermFail, match=words):
        list(parse_table(text))


RECORDS = [
    (b":a b@c\n", b"&x@y\0|p ,;:#\\\0!q\xff\0./l\0/m\0"),
    (b"?a", b"own er@b"),
    (b":empty", b""),
    (b":last", b"&z\0"),
]


def database(records: list[tuple[bytes, bytes]]) -> bytes:
    file = io.BytesIO()
    with cdblib.Writer(file) as writer:
        for key, value in records:
            writer.put(key, value)
    return file.getvalue()


def test_printed_table_is_read_back() -> None:
    records = list(read_records(io.BytesIO(database(RECORDS)).read))
    assert records == RECORDS
    text = b"".join(render_record(key, value) for key, value in records)
    assert list(parse_table(text)) == [each for each in RECORDS if each[1]]


def test_printed_form() -> None:
    assert render_record(b":a,b", b"&x\0|p q\0") == b"a\\,b:\n, &x\n, |p\\ q\n;\n"
    assert render_record(b"?a", b"o@b") == b"a: ?o@b;\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"", b"&x\0"), (b"a", b"&x\0"), (b":a", b"&x"), (b":a", b"x\0")],
)
def test_what_is_no_forwarding_record_is_refused(key: bytes, value: bytes) -> None:
    with pytest.raises(PermFail, match="format"):
        render_record(key, value)


@pytest.mark.parametrize("cut", [0, 3, 2047, 2050, 2060, 2100])
def test_database_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(PermFail, match="format"):
        list(read_records(io.BytesIO(database(RECORDS)[:cut]).read))


def test_record_beyond_the_end_is_refused() -> None:
    data = bytearray(database(RECORDS))
    data[2048:2052] = b"\xff\xff\0\0"
    with pytest.raises(PermFail, match="format"):
        list(read_records(io.BytesIO(bytes(data)).read))
