from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qsend.core.errors import TempFail
from qsend.sysio import crew, threads
from qsend.sysio.crew import FEW, Crew
from qsend.sysio.durable import BLOCKS, Steps, SyncSet

WAIT_S = 20
MANY = FEW + 3


class Rounds:
    """The rounds of syncing: each waits until the test lets it go."""

    def __init__(self) -> None:
        self.begun: queue.Queue[set[int]] = queue.Queue()
        self.threads: set[str] = set()
        self.go = threading.Semaphore(0)
        self.broken: set[int] = set()

    def sync(self, fds: set[int]) -> dict[int, OSError]:
        self.threads.add(threading.current_thread().name)
        self.begun.put(fds)
        assert self.go.acquire(timeout=WAIT_S)
        error = OSError(errno.EIO, "broken disk")
        return dict.fromkeys(fds, error) if fds & self.broken else {}

    def next(self) -> set[int]:
        return self.begun.get(timeout=WAIT_S)

    def all(self) -> list[set[int]]:
        """Those that have begun and were not looked at."""
        return [self.begun.get_nowait() for _ in range(self.begun.qsize())]


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rounds]:
    made = Rounds()
    monkeypatch.setattr(SyncSet, "sync", lambda _set, fds: made.sync(fds))
    yield made
    made.go.release(1000)


class Team:
    """A crew, and the turns of its loop, which the test makes."""

    def __init__(self) -> None:
        self._soon: queue.Queue[Callable[[], None]] = queue.Queue()
        self.told: list[list[str]] = []
        self._crew = Crew[str](self._told, self._soon.put)

    def _told(self, results: list[str]) -> None:
        # From any thread: a turn follows, as in a process that sends them on.
        self._soon.put(lambda: self.told.append(results))

    @property
    def ended(self) -> list[str]:
        return sorted(result for results in self.told for result in results)

    def add(self, *works: Steps[str]) -> None:
        """What comes in one turn."""
        for each in works:
            self._crew.add(each)
        self._soon.get(timeout=WAIT_S)()

    def until(self, count: int) -> list[str]:
        """Turn until so many have ended."""
        while len(self.ended) < count:
            self._soon.get(timeout=WAIT_S)()
        return self.ended


def work(name: str, *fds: int) -> Steps[str]:
    for fd in fds:
        try:
            yield fd
        except OSError as exc:
            return f"{name} errno {exc.errno}"
        except TempFail:
            return f"{name} deferred"
    return name


def works(name: str, count: int, *fds: int) -> list[Steps[str]]:
    return [
        work(f"{name}{number:03}", *(fd + number for fd in fds))
        for number in range(count)
    ]


def names(name: str, count: int) -> list[str]:
    return [f"{name}{number:03}" for number in range(count)]


def no_thread(_target: object) -> None:
    raise RuntimeError("can't start new thread")


def test_all_that_wait_share_a_round_and_are_told_at_once(rounds: Rounds) -> None:
    team = Team()
    team.add(*works("early", MANY, 1000))
    assert rounds.next() == {1000 + number for number in range(MANY)}
    for number in range(10):
        team.add(work(f"late{number:03}", 2000 + number))
    assert not team.ended
    rounds.go.release()
    assert team.until(MANY) == names("early", MANY)
    assert rounds.next() == {2000 + number for number in range(10)}
    rounds.go.release()
    assert team.until(MANY + 10) == names("early", MANY) + names("late", 10)
    assert [len(results) for results in team.told] == [MANY, 10]
    assert len(rounds.threads) == 1
    assert "MainThread" not in rounds.threads


def test_each_delivery_goes_through_all_its_syncs(rounds: Rounds) -> None:
    team = Team()
    team.add(*works("w", MANY, 100, 200, 300))
    rounds.go.release(3)
    assert team.until(MANY) == names("w", MANY)
    firsts = (100, 200, 300)
    assert rounds.all() == [set(range(first, first + MANY)) for first in firsts]


def test_error_of_a_round_reaches_those_in_it_alone(rounds: Rounds) -> None:
    team = Team()
    rounds.broken = {1}
    rounds.go.release(2)
    team.add(*works("bad", MANY, 1))
    assert team.until(MANY) == [
        f"{name} errno {errno.EIO}" for name in names("bad", MANY)
    ]
    team.add(work("good", 9))
    assert "good" in team.until(MANY + 1)


def test_what_blocks_holds_up_nobody(tmp_path: Path) -> None:
    team = Team()
    go = threading.Event()
    fd = os.open(tmp_path, os.O_RDONLY)

    def blocking() -> Steps[str]:
        yield BLOCKS
        assert go.wait(WAIT_S)
        yield fd
        return "blocked"

    team.add(*(blocking() for _ in range(5)))
    team.add(*(work(f"quick{number:03}", fd) for number in range(20)))
    assert team.until(20) == names("quick", 20)
    go.set()
    assert team.until(25) == ["blocked"] * 5 + names("quick", 20)
    os.close(fd)


def test_few_that_come_alone_are_done_without_threads(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = Team()
    rounds.go.release(100)
    with monkeypatch.context() as patch:
        patch.setattr(threads, "start", no_thread)
        for number in range(5):
            team.add(*works(f"{number}", FEW, 10, 20))
    assert len(team.until(5 * FEW)) == 5 * FEW
    assert rounds.threads == {"MainThread"}


def test_without_any_thread_all_but_what_blocks_is_done_by_the_loop(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = Team()
    rounds.go.release(100)
    with monkeypatch.context() as patch:
        patch.setattr(threads, "start", no_thread)
        team.add(work("program", BLOCKS), *works("w", MANY, 10, 20))
        assert team.until(MANY + 1) == ["program deferred", *names("w", MANY)]
    assert rounds.threads == {"MainThread"}
    rounds.threads.clear()
    team.add(*works("x", MANY, 10))
    team.until(2 * MANY + 1)
    assert "MainThread" not in rounds.threads


def test_only_so_many_are_under_way_and_all_have_their_turn(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_ACTIVE_MAX", 8)
    team = Team()
    # Those that need no syncing make room for others, whoever comes first.
    team.add(*works("a", 20), *works("b", 20, 100), *works("c", 20))
    rounds.go.release(1000)
    assert team.until(60) == names("a", 20) + names("b", 20) + names("c", 20)
    begun = rounds.all()
    assert all(len(fds) <= 8 for fds in begun)
    assert set().union(*begun) == set(range(100, 120))
