"""Channel files in both directions; damage anywhere is noticed."""

from __future__ import annotations

import pytest

from qsend.core.errors import QueueCorrupt
from qsend.formats.recips import (
    RECIP_MAX,
    parse_recip,
    parse_recips,
    render_recips,
)

TABLE = [
    ([], (), b"", []),
    ([b"a@x"], (), b"Ta@x\0", [0]),
    ([b"a@x", b"", b"b@y"], (), b"Ta@x\0T\0Tb@y\0", [0, 5, 7]),
    ([b"a@x", b"b@y"], {1}, b"Ta@x\0Db@y\0", [0, 5]),
    ([b"D", b"T"], {0, 1}, b"DD\0DT\0", [0, 3]),
]


@pytest.mark.parametrize(("recips", "done", "content", "offsets"), TABLE)
def test_recips_go_both_ways(
    recips: list[bytes], done: set[int], content: bytes, offsets: list[int]
) -> None:
    assert render_recips(recips, done) == (content, offsets)
    want = [
        (offset, position in done, recip)
        for position, (offset, recip) in enumerate(zip(offsets, recips, strict=True))
    ]
    assert list(parse_recips(content)) == want
    assert [parse_recip(content[offset:]) for offset in offsets] == recips


@pytest.mark.parametrize(
    ("content", "good"),
    [
        (b"T", 0),
        (b"Ta@x", 0),
        (b"\0", 0),
        (b"Ta@x\0Xb@y\0", 1),
        (b"Ta@x\0Db@y\0T", 2),
        (b"T" + b"a" * (RECIP_MAX + 1) + b"\0", 0),
    ],
)
def test_parse_recips_of_damage_is_corrupt_after_the_good_ones(
    content: bytes, good: int
) -> None:
    records = parse_recips(content)
    for _ in range(good):
        next(records)
    with pytest.raises(QueueCorrupt):
        next(records)


def test_longest_recipient_is_accepted_by_all_sides() -> None:
    longest = b"a" * RECIP_MAX
    content, _offsets = render_recips([longest, b"b"])
    assert [recip for _, _, recip in parse_recips(content)] == [longest, b"b"]
    assert parse_recip(content) == longest


@pytest.mark.parametrize("recip", [b"a" * (RECIP_MAX + 1), b"a\0b"])
def test_render_recips_refuses_what_no_reader_would_take(recip: bytes) -> None:
    with pytest.raises(ValueError, match="recipient"):
        render_recips([recip])


@pytest.mark.parametrize("piece", [b"", b"Tabc", b"abc\0", b"\0", b"Fabc\0"])
def test_parse_recip_inside_a_record_is_corrupt(piece: bytes) -> None:
    with pytest.raises(QueueCorrupt):
        parse_recip(piece)


def test_every_cut_of_a_file_is_corrupt_or_whole_records() -> None:
    content, offsets = render_recips([b"a@x", b"bb@y", b"c"], {1})
    whole = {*offsets, len(content)}
    for end in range(len(content)):
        if end in whole:
            assert len(list(parse_recips(content[:end]))) == offsets.index(end)
        else:
            with pytest.raises(QueueCorrupt):
                list(parse_recips(content[:end]))
