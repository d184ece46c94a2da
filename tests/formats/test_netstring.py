from __future__ import annotations

from collections.abc import Iterator

import pytest

from qsend.core.errors import RemoteProtocolError
from qsend.formats.netstring import NetstringReader, NetstringTooLong, render


def contents(wire: bytes, size: int, depth: int = 1) -> Iterator[bytes]:
    """The contents of `wire`, fed `size` bytes at a time; `depth` around each."""
    reader = NetstringReader()
    parts = iter([wire[at : at + size] for at in range(0, len(wire), size)])

    def more() -> None:
        reader.feed(next(parts, b""))

    for _ in range(depth - 1):
        while reader.open() is None:
            more()
    while depth == 1 or reader.left:
        while (length := reader.open()) is None:
            if not (part := next(parts, b"")):
                return
            reader.feed(part)
        found = b""
        while reader.left:
            if not (piece := reader.read()):
                more()
            found += piece
        assert len(found) == length
        while not reader.close():
            more()
        yield found


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_netstrings_come_apart_however_they_are_cut(size: int) -> None:
    values = [b"", b"a", b"1:2,", bytes(range(256)), b"x" * 12]
    wire = b"".join(map(render, values))
    assert list(contents(wire, size)) == values
    assert list(contents(render(wire), size, depth=2)) == values


@pytest.mark.parametrize(
    "wire",
    [
        b":", b"x", b"-1:", b"+1:", b" 1:", b"1 :", b"1;", b"\0", b"\xb2:",
        b"1" * 21, b"0" * 21 + b":", b"GET / HTTP/1.0\r\n",
    ],
)  # fmt: skip
def test_what_is_no_length_is_refused_at_once(wire: bytes) -> None:
    reader = NetstringReader()
    reader.feed(wire)
    with pytest.raises(RemoteProtocolError, match="length"):
        reader.open()


@pytest.mark.parametrize("digits", [b"200000001", b"9" * 20])
def test_huge_length_is_refused_before_a_byte_of_it(digits: bytes) -> None:
    reader = NetstringReader()
    reader.feed(digits + b":")
    with pytest.raises(NetstringTooLong):
        reader.open()


def test_longest_length_and_leading_zeros_are_taken() -> None:
    reader = NetstringReader()
    reader.feed(b"00000000000200000000:")
    assert reader.open() == 200_000_000


@pytest.mark.parametrize(
    "wire", [b"3:3:abc,,", b"4:3:ab,", b"3:12345", b"2:999", b"5:4:abcd,", b"1:1:"]
)
def test_inner_netstring_stays_inside(wire: bytes) -> None:
    reader = NetstringReader()
    reader.feed(wire)
    reader.open()
    with pytest.raises(RemoteProtocolError):
        reader.open()


@pytest.mark.parametrize(
    ("wire", "why"), [(b"1:xy", "comma"), (b"1:x\n", "comma"), (b"2:x", "left over")]
)
def test_end_of_a_netstring_must_be_its_end(wire: bytes, why: str) -> None:
    reader = NetstringReader()
    reader.feed(wire)
    reader.open()
    reader.read()
    with pytest.raises(RemoteProtocolError, match=why):
        reader.close()


def test_content_is_not_kept() -> None:
    reader = NetstringReader()
    reader.feed(b"200000000:")
    reader.open()
    for _ in range(100):
        reader.feed(b"x" * 65536)
        assert len(reader.read()) == 65536
    assert reader.left == 200_000_000 - 6_553_600
