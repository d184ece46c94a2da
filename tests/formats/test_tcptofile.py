"""The shared table of silent hosts, byte for byte."""

from __future__ import annotations

import pytest

from qsend.core.tcpto import Silence
from qsend.formats.tcptofile import (
    TABLE_BYTES,
    Record,
    choose,
    find,
    parse_table,
    render_record,
)

LAST = 0x12345678
RAW = bytes((192, 0, 2, 1, 2, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0))


def record(address: str, count: int, last: int) -> Record:
    return Record(address=address, silence=Silence(count=count, last=last))


def test_record_is_little_endian() -> None:
    assert render_record(record("192.0.2.1", 2, LAST)) == RAW
    assert parse_table(RAW) == (record("192.0.2.1", 2, LAST),)


def test_record_ignores_unused_bytes_and_wraps_the_time() -> None:
    dirty = RAW[:5] + b"\xff\xff\xff" + RAW[8:12] + b"\xff" * 4
    assert parse_table(dirty) == parse_table(RAW)
    assert render_record(record("192.0.2.1", 2, LAST + (1 << 32))) == RAW


@pytest.mark.parametrize(
    ("length", "want"),
    [(0, 0), (15, 0), (16, 1), (31, 1), (1023, 63), (1024, 64), (5000, 64)],
)
def test_table_has_whole_records_only(length: int, want: int) -> None:
    assert len(parse_table(bytes(length))) == want


def test_find_takes_the_first_even_if_free() -> None:
    records = [
        record("1.1.1.1", 1, 5),
        record("2.2.2.2", 0, 5),
        record("2.2.2.2", 3, 5),
    ]
    assert find(records, "2.2.2.2") == 1
    assert find(records, "3.3.3.3") is None


@pytest.mark.parametrize(
    ("silences", "want"),
    [
        ([], None),
        ([(1, 100), (0, 900), (0, 1)], 1),
        ([(1, 5000), (1, 4000), (2, 3500)], 1),
        ([(3, 1000), (1, 4000), (1, 4000)], 0),
    ],
)
def test_choose_takes_a_free_or_the_least_worthy(
    silences: list[tuple[int, int]], want: int | None
) -> None:
    records = [record("9.9.9.9", count, last) for count, last in silences]
    assert choose(records) == want


def test_empty_table_parses_to_free_records() -> None:
    assert {each.silence.count for each in parse_table(bytes(TABLE_BYTES))} == {0}
