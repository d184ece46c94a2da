"""todo/ is read at once after a pull, and seldom in a storm of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.core.model import MessId
from qsend.sysio import clock
from qsend.sysio.loop import Loop
from qsend.sysio.todoscan import RESCAN_S, TRIGGER_PAUSE_S, TodoScan
from qsend.sysio.trigger import Trigger, pull
from tests.fakes import FakeQueue


class World:
    """A scan under a real loop and trigger, at a time that the test says."""

    def __init__(self, fifo: str) -> None:
        self.fifo = fifo
        self.mono = clock.mono()
        self.found: list[MessId] = []
        self.queue = FakeQueue()
        self.loop = Loop()
        self.trigger = Trigger(fifo)
        self.scan = TodoScan(
            self.loop, self.queue, self.trigger, self.found.append, self._say
        )

    def _say(self, line: bytes) -> None:
        raise AssertionError(line)

    def inject(self) -> MessId:
        messid = self.queue.inject(b"x\n", b"u7\0p9\0Fme@home\0Ta@x\0")
        pull(self.fifo)
        return messid

    def turn(self, pass_s: float = 0.0) -> list[MessId]:
        """One turn of the loop, so much later; the messages found in it."""
        self.mono += pass_s
        self.found.clear()
        self.loop.turn(0)
        return self.found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    os.mkfifo(tmp_path / "trigger")
    made = World(str(tmp_path / "trigger"))
    monkeypatch.setattr(clock, "mono", lambda: made.mono)
    made.scan.start()
    yield made
    made.trigger.close()
    made.loop.close()


def test_first_pull_after_a_pause_is_answered_at_once(world: World) -> None:
    world.turn(2 * TRIGGER_PAUSE_S)
    messid = world.inject()
    assert world.turn() == [messid]


def test_pulls_soon_after_a_scan_share_the_next(world: World) -> None:
    world.turn(2 * TRIGGER_PAUSE_S)
    first = world.inject()
    assert world.turn() == [first]
    second, third = world.inject(), world.inject()
    assert world.turn(TRIGGER_PAUSE_S / 2) == []
    assert sorted(world.turn(TRIGGER_PAUSE_S)) == sorted([first, second, third])


def test_message_that_nobody_told_of_is_found_in_time(world: World) -> None:
    messid = world.queue.inject(b"x\n", b"u7\0p9\0Fme@home\0Ta@x\0")
    assert world.turn(RESCAN_S - 1) == []
    assert world.turn(2) == [messid]
