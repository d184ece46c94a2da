"""users/assign: the records of each line, and what is refused."""

from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.formats.assign import LINE_MAX, parse_assign

ROWS = [
    (b"=joe:joe:503:78:/home/joe:::\n", b"!joe\0", b"joe\x00503\x0078\0/home/joe\0\0"),
    (b"+Joe-:j:5:7:/h:-::\n", b"!joe-", b"j\x005\x007\0/h\0-\0"),
    (b"+:alias:7:2:/a:-::\n", b"!", b"alias\x007\x002\0/a\0-\0"),
    (b"=l:u:1:2:/h:-:ext:dropped:too\n", b"!l\0", b"u\x001\x002\0/h\0-\0ext"),
    (b"l:u:1:2:/h:::\n", b"!\0", b"u\x001\x002\0/h\0\0"),
    (b"xl:u:1:2:/h:::\n", b"!l\0", b"u\x001\x002\0/h\0\0"),
    (b"=:u:1:2:/h:::\n", b"!\0", b"u\x001\x002\0/h\0\0"),
    (b"=l:::::::\n", b"!l\0", b"\0\0\0\0\0"),
]


@pytest.mark.parametrize(("line", "key", "value"), ROWS)
def test_line_gives_its_record(line: bytes, key: bytes, value: bytes) -> None:
    first, last = parse_assign([line, b".\n", b"whatever"])
    assert first == (key, value)
    assert last[0] == b""


def test_wildcards_are_distinct_last_bytes_as_written() -> None:
    lines = [b"+%b:u:1:2:/h:-::\n" % pre for pre in (b"a-", b"b-", b"", b"cX", b"d.")]
    *records, (key, wildcards) = parse_assign([*lines, b"=e+:u:1:2:/h:::\n", b"."])
    assert len(records) == 6
    assert (key, wildcards) == (b"", b"-X.")


@pytest.mark.parametrize(
    ("line", "number", "words"),
    [
        (b"", 2, "a last line that starts with a dot"),
        (b"=j:u:1:2:/h:::", 2, "line end"),
        (b"=j:u:1:2:/h::\n", 2, "expected =local"),
        (b":u:1:2:/h:::\n", 2, "expected =local"),
        (b"\n", 2, "expected =local"),
        (b"#comment\n", 2, "expected =local"),
        (b"=j\0:u:1:2:/h:::\n", 2, "NUL"),
        (b"=j:u:1:2:/h:::" + b"x" * LINE_MAX + b"\n", 2, "longer than"),
    ],
)
def test_wrong_line_is_named(line: bytes, number: int, words: str) -> None:
    lines = [b"=a:u:1:2:/h:::\n", line] if line else [b"=a:u:1:2:/h:::\n"]
    with pytest.raises(ConfigError) as caught:
        list(parse_assign(lines))
    [fault] = caught.value.faults
    assert (fault.line, words in fault.problem) == (number, True), fault
