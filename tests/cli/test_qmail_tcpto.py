"""qmail-tcpto and qmail-tcpok: the table on disk, and what a running tree says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from qsend.core.tcpto import Silence
from qsend.formats.tcptofile import Record, render_record
from qsend.sysio import clock
from tests.cli.test_control import OK, STATUS, Manager
from tests.programs import run_program


@pytest.fixture
def home(open_tmp: Path) -> Path:
    (open_tmp / "queue/lock").mkdir(parents=True)
    (open_tmp / "run").mkdir()
    (open_tmp / "queue/lock/tcpto").write_bytes(bytes(1024))
    return open_tmp


def fill(home: Path, now: int) -> None:
    """A table of 64 records: three of them taken, one of those of the future."""
    records = {
        0: Record(address="192.0.2.1", silence=Silence(count=2, last=now - 90)),
        1: Record(address="192.0.2.2", silence=Silence(count=0, last=now - 90)),
        5: Record(address="192.0.2.3", silence=Silence(count=10, last=now + 500)),
        63: Record(address="0.0.0.0", silence=Silence(count=1, last=now - 7200)),
    }
    table = bytearray(1024)
    for at, record in records.items():
        table[at * 16 : at * 16 + 16] = render_record(record)
    (home / "queue/lock/tcpto").write_bytes(table)


def test_table_is_printed_in_its_order(home: Path) -> None:
    before = clock.now()
    fill(home, before)
    done = run_program("qmail_tcpto", home=home)
    passed = clock.now() - before
    assert (done.returncode, done.stderr) == (0, b"")
    rows = re.findall(
        rb"(.*) timed out (\d+) seconds ago; # recent timeouts: (\d+)\n", done.stdout
    )
    assert len(rows) == done.stdout.count(b"\n")
    assert [(row[0], int(row[2])) for row in rows] == [
        (b"192.0.2.1", 2),
        (b"192.0.2.3", 10),
        (b"0.0.0.0", 1),
    ]
    for row, want in zip(rows, (90, 0, 7200), strict=True):
        assert want <= int(row[1]) <= want + passed


@pytest.mark.parametrize("size", [0, 15, 16, 40, 2048])
def test_table_of_another_size_counts_whole_records(home: Path, size: int) -> None:
    record = Record(address="192.0.2.1", silence=Silence(count=1, last=5))
    (home / "queue/lock/tcpto").write_bytes((render_record(record) * 128)[:size])
    done = run_program("qmail_tcpto", home=home)
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == min(size // 16, 64)


@pytest.mark.parametrize("program", ["qmail_tcpto", "qmail_tcpok"])
def test_missing_table_is_111(home: Path, program: str) -> None:
    (home / "queue/lock/tcpto").unlink()
    done = run_program(program, home=home)
    said = done.stdout if program == "qmail_tcpto" else done.stderr
    assert done.returncode == 111
    assert said.count(b"\n") == 1
    assert b"fatal: " in said
    assert b"No such file or directory" in said


def test_tcpok_leaves_1024_zero_bytes(home: Path) -> None:
    fill(home, clock.now())
    os.truncate(home / "queue/lock/tcpto", 1000)
    done = run_program("qmail_tcpok", home=home)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (home / "queue/lock/tcpto").read_bytes() == bytes(1024)
    assert run_program("qmail_tcpto", home=home).stdout == b""


def test_running_tree_is_asked(home: Path) -> None:
    manager = Manager(home, {"status": [STATUS], "cure": [OK]})
    try:
        done = run_program("qmail_tcpto", home=home)
        cleared = run_program("qmail_tcpok", home=home)
    finally:
        asked = manager.end()
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (
        b"b.example could not be reached; next attempt in 300 seconds; # waiting: 6\n"
    )
    assert (cleared.returncode, cleared.stderr) == (0, b"")
    assert asked == [{"do": "status"}, {"do": "cure"}]


@pytest.mark.parametrize(
    ("program", "do"), [("qmail_tcpto", "status"), ("qmail_tcpok", "cure")]
)
def test_tree_that_does_not_understand_is_111(
    home: Path, program: str, do: str
) -> None:
    manager = Manager(home, {do: [{"ok": False, "error": "unknown request"}]})
    try:
        done = run_program(program, home=home)
    finally:
        manager.end()
    assert (done.returncode, done.stdout) == (111, b"")
    assert done.stderr.endswith(b": unknown request\n")
