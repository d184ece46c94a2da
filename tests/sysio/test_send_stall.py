"""Hosts that hang, with more mail than fits: mail for others goes on."""

from __future__ import annotations

from collections import deque

import pytest

from qsend.core import reading
from qsend.core.destinations import PASSED_FROM, STALL_S, UNPROVED_MAX
from qsend.core.model import DelId, MessId
from qsend.core.reading import FIRST_WAIT_S
from tests.fakes import FakeQueue
from tests.sim import SUCCESS, Sim

FIRST_MAX = 60
BAD, GOOD = 300, 100
TURN_S = 0.02


class HangingSim(Sim):
    """Deliveries to bad hosts go on until `recover`."""

    hanging = True

    def __init__(self, queue: FakeQueue) -> None:
        self.hung: list[tuple[DelId, bytes]] = []
        super().__init__(queue, lambda _recip: SUCCESS)

    def attempt(self, delid: DelId, recip: bytes) -> None:
        if self.hanging and b"@bad" in recip:
            self.hung.append((delid, recip))
        else:
            super().attempt(delid, recip)

    def turns_in(self, seconds: float) -> None:
        """Turn for so long by the clock."""
        for _ in range(round(seconds / TURN_S)):
            self.clocks.monotonic += TURN_S
            self.step()

    def recover(self) -> None:
        self.hanging = False
        self.reports.extend(self.hung)
        self.hung.clear()

    def good(self) -> int:
        """Deliveries to good hosts."""
        return sum(b"@good" in each.recip for each in self.delivered)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    """The bad ones first: nothing is known of their hosts when they are read."""
    monkeypatch.setattr(reading, "FIRST_MAX", FIRST_MAX)
    queue = FakeQueue()
    recips = [b"%d@bad%d" % (n, n % 2) for n in range(BAD)]
    recips += [b"%d@good%d" % (n, n % 5) for n in range(GOOD)]
    for recip in recips:
        queue.inject(b"x\n", b"u7\0p9\0Fme@home\0T%b\0" % recip)
    return queue


def written_down(queue: FakeQueue, messids: list[MessId]) -> int:
    return sum(map(queue.info_exists, messids))


def test_mail_for_others_passes_hosts_that_hang(queue: FakeQueue) -> None:
    sim = HangingSim(queue)
    sim.turns_in(FIRST_WAIT_S / 2)
    assert sim.good() == GOOD


def test_mail_that_is_passed_over_is_not_written_down_before_all_is_read(
    queue: FakeQueue,
) -> None:
    messids = list(queue.list_todo())
    sim = HangingSim(queue)
    sim.turns_in(FIRST_WAIT_S / 2)
    assert written_down(queue, messids) <= FIRST_MAX + reading.MADE_ROOM
    assert sim.manager.backlog_size > BAD / 2


def test_recovered_hosts_get_each_message_once(queue: FakeQueue) -> None:
    messids = list(queue.list_todo())
    sim = HangingSim(queue)
    sim.turns_in(1.0)
    for messid in list(queue.list_todo()):
        sim.manager.known(messid)  # as a scan of todo/ tells again
    sim.recover()
    sim.run()
    assert len(sim.delivered) == len({e.recip for e in sim.delivered}) == BAD + GOOD
    assert len(sim.lines(b"new msg")) == BAD + GOOD
    assert not any(queue.present(messid) for messid in messids)


def test_mail_for_a_host_that_hangs_on_is_written_down_when_nothing_else_is_there(
    queue: FakeQueue,
) -> None:
    messids = list(queue.list_todo())
    sim = HangingSim(queue)
    sim.turns_in(4 * FIRST_WAIT_S)
    running = len(sim.hung)
    assert written_down(queue, messids) == BAD - running
    assert sim.manager.backlog_size == 0


def test_host_that_goes_on_has_its_mail_read_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "FIRST_MAX", FIRST_MAX)
    queue = FakeQueue()
    for n in range(BAD):
        queue.inject(b"x\n", b"u7\0p9\0Fme@home\0T%03d@slow\0" % n)
    sim = HangingSim(queue)
    sim.hold_reports = True
    while len(sim.delivered) < BAD:
        sim.clocks.monotonic += STALL_S / 2
        sim.step()
        sim.report(*sim.reports.popleft())
    recips = [each.recip for each in sim.delivered]
    assert recips == sorted(recips)
    assert len(sim.started) > PASSED_FROM


class FarSim(HangingSim):
    """Good hosts answer after `latency_s`."""

    latency_s = 0.1

    def __init__(self, queue: FakeQueue) -> None:
        self.under_way: deque[tuple[float, DelId, bytes]] = deque()
        super().__init__(queue)

    def attempt(self, delid: DelId, recip: bytes) -> None:
        if b"@bad" in recip:
            super().attempt(delid, recip)
        else:
            due_mono = self.clocks.monotonic + self.latency_s
            self.under_way.append((due_mono, delid, recip))

    def report_all(self) -> None:
        while self.under_way and self.under_way[0][0] <= self.clocks.monotonic:
            self.report(*self.under_way.popleft()[1:])

    def seconds_for(self, good: int) -> float:
        """How long that many deliveries to good hosts take."""
        begin_mono = self.clocks.monotonic
        while self.good() < good:
            self.turns_in(TURN_S)
        return self.clocks.monotonic - begin_mono


def mixed_queue(good: int, bad: int) -> FakeQueue:
    """A good and a bad message in turn; ten good hosts, five bad ones."""
    queue = FakeQueue()
    for n in range(max(good, bad)):
        recips = [b"%d@good%d" % (n, n % 10)] * (n < good)
        recips += [b"%d@bad%d" % (n, n % 5)] * (n < bad)
        for recip in recips:
            queue.inject(b"x\n", b"u7\0p9\0Fme@home\0T%b\0" % recip)
    return queue


def test_good_half_keeps_its_slots_beside_hosts_that_hang() -> None:
    alone_s = FarSim(mixed_queue(200, 0)).seconds_for(200)
    mixed = FarSim(mixed_queue(200, 200))
    assert mixed.seconds_for(200) <= alone_s / 0.8
    assert len(mixed.hung) == 5 * UNPROVED_MAX


def test_mail_for_hosts_that_took_none_is_passed_over_as_soon_as_others_take_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FarSim, "latency_s", 0.005)
    sim = FarSim(mixed_queue(200, 200))
    begin_mono = sim.clocks.monotonic
    while sim.manager.backlog:
        sim.clocks.monotonic += 0.005
        sim.step()
    assert sim.clocks.monotonic < begin_mono + STALL_S  # nobody is known to hang
    in_memory = 5 * (UNPROVED_MAX + PASSED_FROM) + reading.LOADS_PER_PUMP
    assert len(sim.lines(b"new msg")) <= 200 + in_memory


def test_what_was_passed_over_comes_back_slowly_while_other_mail_is_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "LOADS_PER_PUMP", 10)
    monkeypatch.setattr(FarSim, "latency_s", STALL_S / 2)
    sim = FarSim(mixed_queue(300, 300))
    manager = sim.manager
    while manager.backlog:
        sim.turns_in(TURN_S)
    before, begin_mono = manager.backlog.passed, sim.clocks.monotonic
    while sim.good() < 300:
        sim.turns_in(TURN_S)
        wait_s = manager.next_wake_s(sim.clocks.wall, sim.clocks.monotonic)
        assert wait_s is not None
        assert 0 < wait_s < STALL_S + 0.001
        came = before - manager.backlog.passed
        assert came <= 10 * ((sim.clocks.monotonic - begin_mono) / STALL_S + 1.01)
    left = manager.backlog.passed
    assert 10 < left < before
    sim.clocks.monotonic += STALL_S
    sim.run_until(lambda: not manager.backlog.passed)  # nothing else moves: at once


def test_nothing_is_written_down_for_room_that_others_do_not_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "FIRST_MAX", 200)
    monkeypatch.setattr(FarSim, "latency_s", STALL_S / 2)
    queue = mixed_queue(500, 200)
    messids = list(queue.list_todo())
    sim = FarSim(queue)
    assert sim.seconds_for(200) > 2 * STALL_S
    assert sim.manager.backlog
    assert written_down(queue, messids) == 0
