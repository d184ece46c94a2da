"""The table of silent hosts that the classic programs share: queue/lock/tcpto.

64 records of 16 bytes: IPv4 address, one byte count (0: free), 3 unused, time of
the last timeout as 32-bit little-endian seconds, 4 unused. IPv6 has no place in it.
Source: tcpto.c, qmail-tcpto.c.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from qsend.core.tcpto import Silence

TABLE_BYTES = 1024
RECORD_BYTES = 16
_RECORD = struct.Struct("<4sB3xI4x")
_TIME_MASK = 0xFFFFFFFF
_AGE_OF_COUNT_S = 1024
"""What one more timeout is worth when a record must make way (tcpto.c)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record; `address` is dotted text. A count of 0 makes it free."""

    address: str
    silence: Silence


def parse_table(data: bytes) -> tuple[Record, ...]:
    """The records of a table, at most 64; a rest that is no whole record is left."""
    whole = min(len(data), TABLE_BYTES) // RECORD_BYTES * RECORD_BYTES
    return tuple(
        Record(
            address=str(ipaddress.IPv4Address(address)),
            silence=Silence(count=count, last=last),
        )
        for address, count, last in _RECORD.iter_unpack(data[:whole])
    )


def render_record(record: Record) -> bytes:
    """The 16 bytes of one record."""
    return _RECORD.pack(
        ipaddress.IPv4Address(record.address).packed,
        record.silence.count,
        record.silence.last & _TIME_MASK,
    )


def find(records: Sequence[Record], address: str) -> int | None:
    """Index of the first record of an address, free ones included, or None."""
    for index, record in enumerate(records):
        if record.address == address:
            return index
    return None


def choose(records: Sequence[Record]) -> int | None:
    """Index of the record that makes way for a new address.

    The first free one, else the one with the smallest time + 1024 s per timeout;
    None in an empty table.
    """
    if not records:
        return None
    for index, record in enumerate(records):
        if record.silence.count == 0:
            return index
    return min(range(len(records)), key=lambda index: _worth(records[index].silence))


def _worth(silence: Silence) -> int:
    return silence.last + silence.count * _AGE_OF_COUNT_S
