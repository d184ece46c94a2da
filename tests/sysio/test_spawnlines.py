"""send's lines to those who deliver: reports, losses, silence, suspects."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from qsend.core.model import Cause, DelId, Letter
from qsend.formats import frames
from qsend.formats.delivery import LocalDelivery, Report, Transaction, render_report
from qsend.sysio.endpoint import Descriptors, Endpoint, pair
from qsend.sysio.loop import Loop
from qsend.sysio.spawnlines import (
    LEAD,
    LEAD_SHARE,
    SILENT_CHECKS,
    RemoteLines,
    SpawnLine,
)


class Lines:
    """A loop, and lines to peers that the test plays."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.reports: list[Report] = []
        self.lost: list[str] = []
        self.slots = 0
        self._open: list[socket.socket] = []

    def line(self, name: str) -> tuple[SpawnLine, socket.socket]:
        ours, theirs = pair()
        theirs.settimeout(5)
        self._open += [ours, theirs]
        line = SpawnLine(
            self.loop, ours, name, self.reports.append, self._lost, self._slots
        )
        return line, theirs

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(0)

    def close(self) -> None:
        for sock in self._open:
            sock.close()
        self.loop.close()

    def _lost(self, name: str, _reason: str) -> None:
        self.lost.append(name)

    def _slots(self) -> None:
        self.slots += 1


@pytest.fixture
def lines() -> Iterator[Lines]:
    made = Lines()
    yield made
    made.close()


def delivery(delid: int) -> LocalDelivery:
    return LocalDelivery(delid=DelId(delid), path=b"1/24", sender=b"", recip=b"a@b")


def transaction(delid: int, *, alone: bool = False) -> Transaction:
    return Transaction(
        domain=b"x",
        relay=b"",
        port=25,
        size=1,
        sender=b"",
        recips=((DelId(delid), b"a@x"),),
        alone=alone,
    )


def report(delid: int) -> bytes:
    return render_report(Report(delid=DelId(delid), letter=Letter.SUCCESS, text=b"ok"))


def test_hello_says_the_slots_and_reports_come_back(lines: Lines) -> None:
    line, peer = lines.line("lspawn")
    peer.send(frames.hello(7))
    lines.turn()
    assert (line.slots, lines.slots) == (7, 1)
    line.start_path(delivery(1))
    lines.turn()
    assert b"a@b" in peer.recv(1000)
    peer.send(report(1))
    lines.turn()
    assert [each.delid for each in lines.reports] == [1]
    assert not line.outstanding


def test_lost_process_crashes_every_delivery_it_had(lines: Lines) -> None:
    line, peer = lines.line("remote0")
    line.start_path(delivery(1))
    line.start_path(delivery(2))
    lines.turn()
    peer.close()
    lines.turn()
    assert [(each.delid, each.letter, each.cause) for each in lines.reports] == [
        (1, Letter.DEFERRAL, Cause.CRASHED),
        (2, Letter.DEFERRAL, Cause.CRASHED),
    ]
    assert lines.lost == ["remote0"]


@pytest.mark.parametrize("bad", [report(9), b"\0\0\0\0?", b"short"])
def test_peer_that_breaks_the_protocol_is_dropped(lines: Lines, bad: bytes) -> None:
    line, peer = lines.line("lspawn")
    line.start_path(delivery(1))
    lines.turn()
    peer.send(bad)
    lines.turn()
    assert lines.lost == ["lspawn"]
    assert [each.cause for each in lines.reports] == [Cause.CRASHED]


def test_silent_process_is_noticed_after_its_checks(lines: Lines) -> None:
    line, _peer = lines.line("remote0")
    assert not line.is_silent()
    line.start_path(delivery(1))
    found = [line.is_silent() for _ in range(SILENT_CHECKS + 1)]
    assert found == [False] * (SILENT_CHECKS - 1) + [True, True]


def test_process_that_answers_is_not_silent(lines: Lines) -> None:
    line, peer = lines.line("remote0")
    line.start_path(delivery(1))

    def ignore(_kind: bytes, _body: bytes, _fds: Descriptors) -> None:
        pass

    Endpoint(lines.loop, peer, ignore, lambda _reason: None)
    for _ in range(3 * SILENT_CHECKS):
        assert not line.is_silent()
        lines.turn()


def test_idle_process_may_be_silent(lines: Lines) -> None:
    line, _peer = lines.line("remote0")
    assert not any(line.is_silent() for _ in range(10))


def two_remotes(lines: Lines) -> tuple[RemoteLines, list[SpawnLine]]:
    remote = RemoteLines(lambda: None)
    made = [lines.line(f"remote{n}")[0] for n in range(2)]
    for line in made:
        remote.attach(line)
    return remote, made


def give(remote: RemoteLines, delids: Iterable[int], domain: bytes) -> None:
    for delid in delids:
        attempt = replace(transaction(delid), domain=domain)
        remote.start(attempt, os.open(os.devnull, os.O_RDONLY))


def test_attempts_for_a_destination_go_to_the_process_that_knows_it(
    lines: Lines,
) -> None:
    remote, made = two_remotes(lines)
    give(remote, range(1, 4), b"x.example")
    give(remote, range(4, 7), b"X.Example")
    assert sorted(len(line.outstanding) for line in made) == [0, 6]
    lines.turn()


def test_destinations_are_spread_over_the_processes(lines: Lines) -> None:
    remote, made = two_remotes(lines)
    for delid in range(1, 101):
        give(remote, [delid], b"d%d.example" % delid)
    assert all(30 < len(line.outstanding) < 70 for line in made)
    lines.turn()


def test_process_that_has_much_less_to_do_gets_attempts_for_any_destination(
    lines: Lines,
) -> None:
    remote, made = two_remotes(lines)
    give(remote, range(1, LEAD + 1), b"x.example")
    assert sorted(len(line.outstanding) for line in made) == [0, LEAD]
    give(remote, range(LEAD + 1, 101), b"x.example")
    fewer, more = sorted(len(line.outstanding) for line in made)
    assert more == fewer + LEAD + fewer // LEAD_SHARE
    lines.turn()


def test_only_process_left_gets_everything(lines: Lines) -> None:
    remote, made = two_remotes(lines)
    assert remote.detach(made[0])
    give(remote, range(1, 31), b"x.example")
    give(remote, range(31, 61), b"y.example")
    assert [len(line.outstanding) for line in made] == [0, 60]
    lines.turn()


def test_suspects_go_one_at_a_time_to_a_process_of_their_own(lines: Lines) -> None:
    asked: list[str] = []
    remote = RemoteLines(lambda: asked.append("isolated"))
    remote.attach(lines.line("remote0")[0])
    for delid in (1, 2):
        fd = os.open(os.devnull, os.O_RDONLY)
        remote.start(transaction(delid, alone=True), fd)
    assert asked == ["isolated"]
    line, peer = lines.line("isolated")
    remote.attach(line)
    assert line.outstanding == {1}
    lines.turn()
    peer.send(report(1))
    lines.turn()
    remote.pump_suspects()
    assert line.outstanding == {2}
    lines.turn()
    peer.send(report(2))
    lines.turn()
    remote.pump_suspects()
    assert lines.lost == ["isolated"]
