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
from qsend.sysio.crew import WORKERS, Crew
from qsend.sysio.durable import BLOCKS, Steps, SyncSet

WAIT_S = 20


class Rounds:
    """The rounds of syncing: each waits until the test lets it go."""

    def __init__(self) -> None:
        self.begun: queue.Queue[set[int]] = queue.Queue()
        self.go = threading.Semaphore(0)
        self.errors: dict[int, OSError] = {}

    def sync(self, fds: set[int]) -> dict[int, OSError]:
        if not fds:
            return {}
        self.begun.put(fds)
        assert self.go.acquire(timeout=WAIT_S)
        return self.errors


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rounds]:
    made = Rounds()
    monkeypatch.setattr(SyncSet, "sync", lambda _set, fds: made.sync(fds))
    yield made
    made.go.release(1000)


class Ended(queue.Queue[str]):
    """Results as they come, and how often they were told."""

    calls = 0

    def put_all(self, results: list[str]) -> None:
        self.calls += 1
        for result in results:
            self.put(result)

    def next(self) -> str:
        return self.get(timeout=WAIT_S)


def crew_of(ended: Ended) -> Crew[str]:
    return Crew[str](ended.put_all, lambda begin: begin())


@pytest.fixture(autouse=True)
def no_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are had for one delivery already."""
    monkeypatch.setattr(crew, "FEW", 0)


def work(name: str, *fds: int) -> Steps[str]:
    for fd in fds:
        try:
            yield fd
        except OSError as exc:
            return f"{name} errno {exc.errno}"
        except TempFail:
            return f"{name} deferred"
    return f"{name} in {threading.current_thread().name}"


def test_all_that_wait_share_a_round(rounds: Rounds) -> None:
    ended = Ended()
    team = crew_of(ended)
    for number in range(WORKERS):
        team.add(work(f"early{number}", 1000 + number))
        assert rounds.begun.get(timeout=WAIT_S) == {1000 + number}
    for number in range(10):
        team.add(work(f"late{number}", 2000 + number))
    # Every worker is in a round: the late ones wait for the next, and share it.
    rounds.go.release(WORKERS)
    late: set[int] = set()
    count = 0
    while len(late) < 10:
        late |= rounds.begun.get(timeout=WAIT_S)
        rounds.go.release()
        count += 1
    assert late == {2000 + number for number in range(10)}
    assert count <= 6
    names = {ended.next().split()[0] for _ in range(12)}
    assert len(names) == 12
    # Those who carry the results on are woken once for each round.
    assert ended.calls <= WORKERS + count


def test_one_delivery_goes_through_all_its_syncs(rounds: Rounds) -> None:
    ended = Ended()
    team = crew_of(ended)
    team.add(work("a", 1, 2, 3))
    for fd in (1, 2, 3):
        assert rounds.begun.get(timeout=WAIT_S) == {fd}
        assert ended.empty()
        rounds.go.release()
    assert ended.next().startswith("a in ")


def test_error_of_a_round_reaches_those_in_it_alone(rounds: Rounds) -> None:
    ended = Ended()
    team = crew_of(ended)
    rounds.errors = {1: OSError(errno.EIO, "broken disk")}
    rounds.go.release(2)
    team.add(work("a", 1))
    team.add(work("b", 2))
    results = {ended.next().split(" in ")[0] for _ in range(2)}
    assert results == {f"a errno {errno.EIO}", "b"}


def test_what_blocks_holds_up_nobody(tmp_path: Path) -> None:
    ended = Ended()
    team = crew_of(ended)
    go = threading.Event()
    fd = os.open(tmp_path, os.O_RDONLY)

    def blocking() -> Steps[str]:
        yield BLOCKS
        assert go.wait(WAIT_S)
        yield fd
        return "blocked"

    for _ in range(3 * WORKERS):
        team.add(blocking())
    for number in range(20):
        team.add(work(f"quick{number}", fd))
    names = {ended.next().split()[0] for _ in range(20)}
    assert names == {f"quick{number}" for number in range(20)}
    assert ended.empty()
    go.set()
    assert [ended.next() for _ in range(3 * WORKERS)] == ["blocked"] * 3 * WORKERS
    os.close(fd)


def test_without_a_thread_to_be_had_what_blocks_is_deferred(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = Ended()
    team = crew_of(ended)
    team.add(work("first"))
    ended.next()  # a worker runs

    def start(_target: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "start", start)
    team.add(work("blocking", BLOCKS))
    assert ended.next() == "blocking deferred"


def no_thread(_target: object) -> None:
    raise RuntimeError("can't start new thread")


def test_without_any_thread_all_but_what_blocks_is_done_by_the_caller(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Ended()
    team = crew_of(ended)
    with monkeypatch.context() as patch:
        patch.setattr(threads, "start", no_thread)
        rounds.go.release()
        team.add(work("short", 1000))
        assert ended.next() == "short in MainThread"
        team.add(work("program", BLOCKS))
        assert ended.next() == "program deferred"
    team.add(work("after"))
    assert ended.next() != "after in MainThread"


def test_second_thread_that_cannot_be_had_leaves_the_work_to_the_first(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Ended()
    team = crew_of(ended)
    team.add(work("first", 1000))
    assert rounds.begun.get(timeout=WAIT_S) == {1000}
    with monkeypatch.context() as patch:
        patch.setattr(threads, "start", no_thread)
        team.add(work("second"))
    rounds.go.release()
    names = {ended.next(), ended.next()}
    assert len({name.split(" in ")[1] for name in names}) == 1


def test_few_that_come_alone_are_done_without_threads(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "FEW", 2)
    soon: list[Callable[[], None]] = []
    ended = Ended()
    team = Crew[str](ended.put_all, soon.append)
    rounds.go.release(100)
    for count, is_here in ((1, True), (2, True), (3, False), (1, False)):
        for number in range(count):
            team.add(work(f"w{number}", number))
        while soon:
            soon.pop()()
        where = {ended.next().split(" in ")[1] for _ in range(count)}
        assert (where == {"MainThread"}) is is_here
