"""Memory is short: what could only wait is parked, or left where it is due."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from qsend.core import attempts, destinations, operator, reading
from qsend.core.model import Channel, MessId
from qsend.formats.control import Route
from tests.fakes import FakeQueue
from tests.sim import DEFERRAL, ROUTING, SUCCESS, UNREACHABLE, Outcome, Sim

COUNT = 40
MEMORY_MAX = 10
HOUR = 3600


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "CROWD_MAX", MEMORY_MAX)
    monkeypatch.setattr(attempts, "CROWD_DESTINATION", 4)
    monkeypatch.setattr(destinations, "REFILL_FROM", 2)
    monkeypatch.setattr(destinations, "REFILL_TO", 4)
    monkeypatch.setattr(reading, "LOADS_PER_PUMP", 5)


class World:
    """Messages that were deferred once; `outcome` is what happens from then on."""

    def __init__(self, *recips: bytes) -> None:
        self.outcome: Outcome = DEFERRAL
        self.tried: list[bytes] = []
        self.queue = FakeQueue()
        self.messids = [
            self.queue.inject(b"x\n", b"u7\0p9\0Fme@home\0T%b\0" % recip)
            for recip in recips
        ]
        self.sim = Sim(self.queue, self._attempt)
        self.sim.run()
        assert sorted(self.tried) == sorted(recips)
        self.tried.clear()
        self.outcome = SUCCESS

    def _attempt(self, recip: bytes) -> Outcome:
        self.tried.append(recip)
        return self.outcome

    def make_due(self) -> None:
        self.sim.clocks.wall += HOUR
        self.run()

    def run(self) -> None:
        """Turn until there is nothing to do, and no more to be read."""
        for _ in range(3 * COUNT):
            self.sim.step()
        self.sim.run()

    def in_memory(self) -> int:
        return len(self.sim.manager.messages)

    def parked(self) -> list[MessId]:
        return list(self.sim.manager.attempts.waiting[Channel.REMOTE].parked)

    def is_empty(self) -> bool:
        return not any(self.queue.present(messid) for messid in self.messids)


def same_host() -> World:
    return World(*(b"n%d@x" % number for number in range(COUNT)))


def many_hosts() -> World:
    return World(*(b"a@h%d" % number for number in range(COUNT)))


def many_users() -> World:
    return World(*(b"u%d@here" % number for number in range(COUNT)))


def test_mail_of_a_held_host_is_parked_and_goes_in_its_order() -> None:
    world = same_host()
    operator.hold(world.sim.manager, b"host:x")
    world.make_due()
    assert world.in_memory() <= MEMORY_MAX + 1
    assert len(world.parked()) == COUNT - world.in_memory()
    assert not world.tried
    operator.release(world.sim.manager, b"host:x", world.sim.clocks.wall)
    world.run()
    assert world.tried == [b"n%d@x" % number for number in range(COUNT)]
    assert world.is_empty()
    assert not world.parked()


def test_busy_host_takes_all_its_mail_without_a_pause() -> None:
    world = same_host()
    world.make_due()
    assert len(world.tried) == COUNT
    assert world.is_empty()


def test_mail_for_others_passes_what_is_parked() -> None:
    world = World(*(b"n%d@x" % number for number in range(COUNT)), b"a@y", b"b@here")
    operator.hold(world.sim.manager, b"host:x")
    world.make_due()
    assert sorted(world.tried) == [b"a@y", b"b@here"]


def test_new_mail_waits_behind_what_is_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = same_host()
    operator.hold(world.sim.manager, b"host:x")
    world.make_due()
    monkeypatch.setattr(attempts, "CROWD_MAX", 1000)  # others may have ended
    late = world.queue.inject(b"x\n", b"u7\0p9\0Fme@home\0Tlate@x\0")
    world.sim.manager.known(late)
    world.run()
    operator.release(world.sim.manager, b"host:x", world.sim.clocks.wall)
    world.run()
    assert world.tried[-1] == b"late@x"
    assert len(world.tried) == COUNT + 1


@pytest.mark.parametrize(
    ("make", "channel"), [(many_hosts, b"remote"), (many_users, b"local")]
)
def test_what_a_held_channel_has_due_stays_in_the_schedule(
    make: Callable[[], World], channel: bytes
) -> None:
    world = make()
    operator.hold(world.sim.manager, channel)
    world.make_due()
    assert world.in_memory() <= MEMORY_MAX + 5
    now, now_mono = world.sim.clocks.wall, world.sim.clocks.monotonic
    wake_s = world.sim.manager.next_wake_s(now, now_mono)
    assert wake_s is not None
    assert wake_s > 1  # it does not look again and again
    operator.release(world.sim.manager, channel, now)
    world.run()
    assert len(world.tried) == COUNT
    assert world.is_empty()


def test_parked_message_is_removed_and_never_tried() -> None:
    world = same_host()
    operator.hold(world.sim.manager, b"host:x")
    world.make_due()
    gone = world.parked()[3]
    assert operator.remove(world.sim.manager, gone)
    assert gone not in world.parked()
    world.run()
    assert not world.queue.present(gone)
    operator.release(world.sim.manager, b"host:x", world.sim.clocks.wall)
    world.run()
    assert len(world.tried) == COUNT - 1
    assert not operator.remove(world.sim.manager, gone)


def test_stop_leaves_parked_mail_for_the_next_send() -> None:
    world = same_host()
    operator.hold(world.sim.manager, b"host:x")
    world.make_due()
    world.sim.manager.stop()
    after = Sim(world.queue, lambda _recip: SUCCESS)
    after.clocks.wall = world.sim.clocks.wall
    after.run()
    assert len(after.delivered) == COUNT


def test_mail_parked_behind_an_ill_host_is_returned_when_its_time_is_over() -> None:
    world = same_host()
    world.outcome = UNREACHABLE
    for _ in range(30):
        world.sim.clocks.wall += 12 * HOUR
        world.sim.clocks.monotonic += 12 * HOUR
        world.run()
    assert world.is_empty()
    assert len(world.sim.bounced) == COUNT


def test_search_for_a_host_goes_a_part_at_a_time() -> None:
    world = World(*(b"a@%b" % (b"x" if n % 2 else b"y") for n in range(COUNT)))
    dues = world.sim.manager.dues[Channel.REMOTE]
    before = sorted(dues)
    operator.flush(world.sim.manager, b"host:x", world.sim.clocks.wall)
    assert sorted(dues) == before
    world.sim.step()
    assert len(dues._searched) == COUNT - 5
    assert operator.remove(world.sim.manager, before[-1][1])
    operator.flush(world.sim.manager, b"host:y", world.sim.clocks.wall)
    world.run()
    assert sorted(world.tried) == [b"a@x"] * (COUNT // 2 - 1) + [b"a@y"] * (COUNT // 2)


def test_flush_of_all_ends_a_search() -> None:
    world = many_hosts()
    operator.flush(world.sim.manager, b"host:h3", world.sim.clocks.wall)
    operator.flush(world.sim.manager, b"all", world.sim.clocks.wall)
    world.run()
    assert len(world.tried) == COUNT


def test_mail_parked_behind_an_old_route_is_parked_behind_the_new_one() -> None:
    world = same_host()
    manager = world.sim.manager
    operator.hold(manager, b"host:x")
    world.make_due()
    before = len(world.parked())
    world.sim.loader.routing = dataclasses.replace(
        ROUTING, smtproutes={b"x": Route(host=b"relay", port=25)}
    )
    operator.hold(manager, b"host:relay:25")
    operator.release(manager, b"host:x", world.sim.clocks.wall)
    world.run()
    assert len(world.tried) == COUNT - before
    assert world.in_memory() <= MEMORY_MAX
    operator.release(manager, b"host:relay:25", world.sim.clocks.wall)
    world.run()
    assert len(world.tried) == COUNT
    assert world.is_empty()
