"""send's spawners come and go: none of them takes another's line with it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from qsend.core.manager import Manager
from qsend.core.model import Cause, Channel, DelId
from qsend.formats import frames
from qsend.formats.delivery import LocalDelivery, Report
from qsend.sysio.endpoint import pair
from qsend.sysio.loop import Loop
from qsend.sysio.spawners import Spawners
from tests.sim import SETTINGS


class Bench:
    """Spawners with peers that the test plays."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.manager = Manager(SETTINGS, lambda: 0)
        self.reports: list[Report] = []
        self.lost: list[str] = []
        self.spawners = Spawners(
            self.loop,
            self.manager,
            self.reports.append,
            lambda name, _reason: self.lost.append(name),
            lambda: None,
        )
        self._open: list[socket.socket] = []

    def attach(self, name: str, slots: int) -> socket.socket:
        """A new process of that name that takes so much; its end."""
        ours, theirs = pair()
        self._open += [ours, theirs]
        theirs.send(frames.hello(slots))
        self.spawners.attach(name, ours)
        return theirs

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(0)

    def silent(self) -> list[str]:
        """Whom the checks of a minute name."""
        named: list[str] = []
        for _ in range(3):
            self.spawners.check_silence(named.append)
        return named

    def close(self) -> None:
        for sock in self._open:
            sock.close()
        self.loop.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "channel"), [("lspawn", Channel.LOCAL), ("remote0", Channel.REMOTE)]
)
def test_late_end_of_a_line_leaves_the_one_in_its_place(
    bench: Bench, name: str, channel: Channel
) -> None:
    old = bench.attach(name, 3)
    bench.turn()
    # start's word of the new process is read before the end of the old one's line.
    bench.attach(name, 7)
    old.close()
    bench.turn()
    assert bench.lost == [name]
    assert bench.manager.capacity[channel] == 7
    assert bench.silent() == []


def test_late_end_of_a_line_reports_what_it_had(bench: Bench) -> None:
    old = bench.attach("lspawn", 3)
    bench.turn()
    bench.spawners.local.start(
        LocalDelivery(delid=DelId(1), path=b"1/24", sender=b"", recip=b"a@b")
    )
    bench.attach("lspawn", 7)
    bench.turn()
    assert bench.reports == []
    old.close()
    bench.turn()
    assert [(each.delid, each.cause) for each in bench.reports] == [(1, Cause.CRASHED)]


def test_line_that_is_not_replaced_is_named(bench: Bench) -> None:
    bench.attach("lspawn", 3).close()
    bench.turn()
    assert bench.manager.capacity[Channel.LOCAL] == 0
    assert bench.silent() == ["lspawn"]
