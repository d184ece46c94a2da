"""A constant database is read record by record, and damage is bounded."""

from __future__ import annotations

import hashlib
import os
import random
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cdblib
import pytest

from qsend.core.errors import ConfigError
from qsend.sysio import clock
from qsend.sysio.cdbfile import CdbFile

EXAMPLE = {
    b"!joe\0": b"joe\x00503\x0078\0/home/joe\0\0",
    b"!joe-": b"joe\x00503\x0078\0/home/joe\0-\0",
    b"!": b"alias\x007790\x002108\0/var/qmail/alias\0-\0",
    b"": b"-",
}
"""The worked example of the users/cdb format."""


def write(path: Path, records: Mapping[bytes, bytes]) -> None:
    with path.open("wb") as file, cdblib.Writer(file) as writer:
        for key, value in records.items():
            writer.put(key, value)


@contextmanager
def opened(path: Path) -> Iterator[CdbFile]:
    fd = os.open(path, os.O_RDONLY)
    try:
        cdb = CdbFile(fd, "users/cdb")
    except BaseException:
        os.close(fd)
        raise
    yield cdb
    cdb.close()


def test_example_is_the_file_of_the_format_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    write(path, EXAMPLE)
    content = path.read_bytes()
    assert len(content) == 2236
    assert hashlib.sha256(content).hexdigest() == (
        "a64fe9c4540613a28518ca814953874e20cad9908cae81b7e51e8a2ca78ccb13"
    )
    with opened(path) as cdb:
        for key, value in EXAMPLE.items():
            assert cdb.get(key) == value
        for absent in (b"!joe", b"joe", b"!joe-\0", b"x" * 1000):
            assert cdb.get(absent) is None


def test_many_records_all_found(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    records = {b"!user%d\0" % n: b"v%d" % n for n in range(5000)}
    write(path, records)
    with opened(path) as cdb:
        assert all(cdb.get(key) == value for key, value in records.items())


def test_file_shorter_than_its_header_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    for content in (b"", b"x", bytes(2047)):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="2048"), opened(path):
            pass


def test_empty_database_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    write(path, {})
    with opened(path) as cdb:
        assert cdb.get(b"") is None


def test_file_cut_anywhere_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    write(path, EXAMPLE)
    with opened(path) as cdb:
        os.truncate(path, 2060)
        with pytest.raises(ConfigError, match="ends inside"):
            cdb.get(b"!joe\0")


def test_table_without_an_empty_slot_ends_the_search(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    header = struct.pack("<II", 2048, 4) * 256
    path.write_bytes(header + struct.pack("<II", 1, 2048) * 4)
    with opened(path) as cdb:
        started = clock.mono()
        with pytest.raises(ConfigError, match="without an end"):
            cdb.get(b"!joe\0")
        assert clock.mono() - started < 1


def test_huge_field_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    write(path, {b"k": b"v"})
    content = bytearray(path.read_bytes())
    content[2048:2056] = struct.pack("<II", 1, 2**32 - 1)
    path.write_bytes(content)
    with opened(path) as cdb, pytest.raises(ConfigError, match="field of"):
        cdb.get(b"k")


def test_random_damage_gives_an_answer_or_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    write(path, EXAMPLE)
    whole = path.read_bytes()
    rng = random.Random(7)
    outcomes: set[type] = set()
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 200)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        with opened(path) as cdb:
            for key in EXAMPLE:
                try:
                    outcomes.add(type(cdb.get(key)))
                except ConfigError:
                    outcomes.add(ConfigError)
    assert outcomes == {bytes, type(None), ConfigError}
