"""The sweep of mess/: orphans over 36 hours old go, everything else stays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from qsend.core.model import FileIdentity, MessId
from qsend.sysio.sweeper import OSSIFIED_S, STEP, Sweeper
from tests.fakes import FakeQueue

ENVELOPE = b"u0\0p1\0Fa@x\0Tb@y\0"
NOW = 1_000_000_000


class SweepLoop:
    """Timers that the test lets go."""

    def __init__(self) -> None:
        self.later: deque[tuple[float, Callable[[], None]]] = deque()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.later.append((delay_s, callback))

    def run_short(self) -> float:
        """Let every pause within the sweep pass; the long pause behind it."""
        while self.later and self.later[0][0] < 1:
            self.later.popleft()[1]()
        return self.later[0][0]


class SweepTest:
    def __init__(self) -> None:
        self.queue = FakeQueue()
        self.loop = SweepLoop()
        self.asked: list[MessId] = []
        self.known: set[MessId] = set()
        self.now = NOW + OSSIFIED_S + 10
        self.log: list[bytes] = []
        self.error: OSError | None = None

    def sweep(
        self,
        messid: MessId,
        _identity: FileIdentity,
        answer: Callable[[OSError | None], None],
    ) -> None:
        self.asked.append(messid)
        answer(self.error)

    def run(self) -> float:
        sweeper = Sweeper(
            self.loop,
            self.queue,
            self,
            self.known.__contains__,
            lambda: self.now,
            self.log.append,
        )
        sweeper.start()
        return self.loop.run_short()


@pytest.fixture
def sweep() -> SweepTest:
    return SweepTest()


def test_old_orphans_go_and_the_next_sweep_is_long_after(sweep: SweepTest) -> None:
    orphans = [sweep.queue.inject(b"x\n", None) for _ in range(3 * STEP)]
    assert sweep.run() > 70000
    assert sorted(sweep.asked) == sorted(orphans)


@pytest.mark.parametrize("age", [0, OSSIFIED_S - 100])
def test_young_file_may_still_be_written_and_stays(sweep: SweepTest, age: int) -> None:
    sweep.queue.inject(b"x\n", None)
    sweep.now = NOW + age
    sweep.run()
    assert sweep.asked == []


@pytest.mark.parametrize("claim", ["todo", "info", "memory"])
def test_claimed_file_stays(sweep: SweepTest, claim: str) -> None:
    messid = sweep.queue.inject(b"x\n", ENVELOPE if claim == "todo" else None)
    if claim == "info":
        sweep.queue.put("info", messid, b"Fa@x\0")
    elif claim == "memory":
        sweep.known.add(messid)
    orphan = sweep.queue.inject(b"y\n", None)
    sweep.run()
    assert sweep.asked == [orphan]


def test_failed_removal_is_said_and_the_sweep_goes_on(sweep: SweepTest) -> None:
    sweep.queue.inject(b"x\n", None)
    sweep.queue.inject(b"y\n", None)
    sweep.error = OSError(5, "Input/output error")
    sweep.run()
    assert len(sweep.asked) == 2
    assert len(sweep.log) == 2
    assert b"unable to clean up" in sweep.log[0]


def test_unreadable_directory_is_said_and_tried_again_later(sweep: SweepTest) -> None:
    sweep.queue.disk.fail = lambda call, _path: 5 if call == "open" else 0
    assert sweep.run() > 70000
    assert sweep.log[0].startswith(b"warning: trouble sweeping mess")
