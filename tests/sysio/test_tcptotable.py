"""The shared table of silent hosts as a file."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from qsend.core.tcpto import Silence
from qsend.formats.tcptofile import Record, parse_table, render_record
from qsend.sysio import clock
from qsend.sysio.tcptotable import TcptoTable, clear

HOST = "192.0.2.1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tcpto"
    file.write_bytes(bytes(1024))
    return file


def put(path: Path, *records: Record) -> None:
    data = b"".join(map(render_record, records))
    path.write_bytes(data + path.read_bytes()[len(data) :])


def silent(address: str, count: int, age_s: int) -> Record:
    return Record(
        address=address, silence=Silence(count=count, last=clock.now() - age_s)
    )


def counts(path: Path) -> dict[str, int]:
    records = parse_table(path.read_bytes())
    return {each.address: each.silence.count for each in records if each.silence.last}


def test_two_timeouts_two_minutes_apart_make_a_host_rest(path: Path) -> None:
    table = TcptoTable(str(path), seed=0)
    assert not table.is_skipped(HOST)
    table.note_timeout(HOST)
    assert counts(path) == {HOST: 1}
    table.note_timeout(HOST)  # at once: still one
    assert counts(path) == {HOST: 1}
    put(path, silent(HOST, 1, 121))
    table.note_timeout(HOST)
    assert counts(path) == {HOST: 2}
    assert table.is_skipped(HOST)


def test_rest_ends(path: Path) -> None:
    put(path, silent(HOST, 2, 3800))
    assert TcptoTable(str(path), seed=0).is_skipped(HOST)
    put(path, silent(HOST, 2, 3850))
    assert not TcptoTable(str(path), seed=0).is_skipped(HOST)
    assert TcptoTable(str(path), seed=31).is_skipped(HOST)


def test_answer_frees_only_a_record_that_was_seen(path: Path) -> None:
    put(path, silent(HOST, 1, 10))
    table = TcptoTable(str(path), seed=0)
    table.note_answer(HOST)
    assert counts(path) == {HOST: 1}
    assert not table.is_skipped(HOST)
    table.note_answer(HOST)
    assert counts(path) == {HOST: 0}


def test_full_table_gives_up_the_least_worthy(path: Path) -> None:
    put(path, *(silent(f"10.0.0.{n}", 3, 100 + (n == 40)) for n in range(64)))
    TcptoTable(str(path), seed=0).note_timeout(HOST)
    assert parse_table(path.read_bytes())[40].address == HOST
    assert path.stat().st_size == 1024


def test_ipv6_is_never_in_the_table(path: Path) -> None:
    table = TcptoTable(str(path), seed=0)
    table.note_timeout("2001:db8::1")
    assert not table.is_skipped("2001:db8::1")
    assert path.read_bytes() == bytes(1024)


def test_missing_or_short_file_is_an_empty_table(tmp_path: Path) -> None:
    for content in (None, b"", b"short"):
        file = tmp_path / "tcpto"
        if content is not None:
            file.write_bytes(content)
        table = TcptoTable(str(file), seed=0)
        table.note_timeout(HOST)
        table.note_answer(HOST)
        assert not table.is_skipped(HOST)
        assert not file.exists() or file.read_bytes() == content


def test_clear_frees_all_and_creates_nothing(path: Path, tmp_path: Path) -> None:
    put(path, silent(HOST, 2, 0))
    clear(str(path))
    assert path.read_bytes() == bytes(1024)
    clear(str(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


def is_waiting_for_a_lock(pid: int) -> bool:
    """Whether /proc/locks shows this process in a queue (`1: -> FLOCK ... pid`)."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and str(pid) in line.split() for line in lines)


def test_writer_waits_for_the_lock(path: Path) -> None:
    script = (
        "from qsend.sysio.tcptotable import TcptoTable\n"
        f"TcptoTable({str(path)!r}, 0).note_timeout({HOST!r})"
    )
    with open(path, "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with subprocess.Popen([sys.executable, "-c", script]) as process:
            end = clock.mono() + 20
            while not is_waiting_for_a_lock(process.pid):
                assert process.poll() is None
                assert clock.mono() < end
            assert counts(path) == {}
            fcntl.flock(holder, fcntl.LOCK_UN)
            assert process.wait(20) == 0
    assert counts(path) == {HOST: 1}
