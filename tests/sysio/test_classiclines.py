"""send's line to a classic spawner: start byte, slots, reports, loss."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from qsend.core.model import Cause, DelId, Letter
from qsend.formats.classic import CommandReader, render_report
from qsend.formats.delivery import LocalDelivery, Report
from qsend.sysio.classiclines import ClassicSpawnLine
from qsend.sysio.loop import Loop
from qsend.sysio.wire import Wire


class Spawner:
    """A line, and the spawner's end of it."""

    def __init__(self) -> None:
        self.loop = Loop()
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(10)
        self.reports: list[Report] = []
        self.lost: list[str] = []
        self.told: list[int] = []
        self.wire = Wire.of_socket(ours)
        self.line = ClassicSpawnLine(
            self.loop,
            self.wire,
            "classic-rspawn",
            self.reports.append,
            lambda name, _reason: self.lost.append(name),
            lambda: self.told.append(self.line.slots),
        )
        self.reader = CommandReader()

    def start(self, delid: int, recip: bytes = b"a@b") -> None:
        self.line.start_path(
            LocalDelivery(
                delid=DelId(delid), path=b"20/457", sender=b"me@x", recip=recip
            )
        )

    def turn(self) -> None:
        self.loop.turn(0)

    def commands(self) -> list[tuple[int, bytes]]:
        found = self.reader.feed(self.peer.recv(65536))
        return [(each.delnum, each.recip) for each in found]

    def close(self) -> None:
        self.peer.close()
        self.wire.close()
        self.loop.close()


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()


@pytest.mark.parametrize(("byte", "slots"), [(120, 120), (0, 1), (1, 1), (255, 255)])
def test_start_byte_says_how_many_it_takes(
    spawner: Spawner, byte: int, slots: int
) -> None:
    spawner.peer.send(bytes((byte,)))
    spawner.turn()
    assert spawner.told == [slots]


def test_lowest_free_slot_is_reused_and_reports_find_their_delivery(
    spawner: Spawner,
) -> None:
    spawner.peer.send(b"\x78")
    spawner.turn()
    for delid in (11, 12, 13):
        spawner.start(delid)
    assert [delnum for delnum, _ in spawner.commands()] == [0, 1, 2]
    spawner.peer.send(render_report(1, Letter.SUCCESS, b"ok\n"))
    spawner.turn()
    spawner.start(14)
    assert [delnum for delnum, _ in spawner.commands()] == [1]
    spawner.peer.send(
        render_report(1, Letter.FAILURE, b"no\n")
        + render_report(0, Letter.DEFERRAL, b"")
    )
    spawner.turn()
    assert [(each.delid, each.letter) for each in spawner.reports] == [
        (12, Letter.SUCCESS),
        (14, Letter.FAILURE),
        (11, Letter.DEFERRAL),
    ]


def test_mangled_report_defers(spawner: Spawner) -> None:
    spawner.peer.send(b"\x78")
    spawner.turn()
    spawner.start(1)
    spawner.peer.send(b"\x00?what\x00")
    spawner.turn()
    [report] = spawner.reports
    assert (report.letter, report.cause) == (Letter.DEFERRAL, Cause.MANGLED)


def test_report_for_an_unused_slot_names_no_delivery(spawner: Spawner) -> None:
    spawner.peer.send(b"\x78" + render_report(7, Letter.SUCCESS, b"ok"))
    spawner.turn()
    assert [each.delid for each in spawner.reports] == [0]


def test_commands_wait_for_a_spawner_that_does_not_read(spawner: Spawner) -> None:
    spawner.peer.send(b"\xff")
    spawner.turn()
    long = b"x" * 20000 + b"@b"
    for delid in range(1, 101):
        spawner.start(delid, long)
    found: list[tuple[int, bytes]] = []
    while len(found) < 100:
        found += spawner.commands()
        spawner.turn()
    assert [delnum for delnum, _ in found] == list(range(100))


def test_lost_spawner_defers_what_it_had(spawner: Spawner) -> None:
    spawner.peer.send(b"\x78")
    spawner.turn()
    spawner.start(1)
    spawner.start(2)
    spawner.commands()
    spawner.peer.close()
    spawner.turn()
    assert [(each.delid, each.letter) for each in spawner.reports] == [
        (1, Letter.DEFERRAL),
        (2, Letter.DEFERRAL),
    ]
    assert spawner.lost == ["classic-rspawn"]
