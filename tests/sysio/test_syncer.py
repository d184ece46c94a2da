"""The syncer: shared rounds, order, laziness, errors, on real files."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qsend.formats.control import Durability
from qsend.sysio import clock, syncer, threads
from qsend.sysio.loop import Loop
from qsend.sysio.syncer import SYNCFS_FROM, Syncer, sync_now


class Bench:
    """A loop, a syncer on it, and a record of answers and system calls."""

    def __init__(
        self, tmp_path: Path, level: Durability, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.loop = Loop()
        self.tmp_path = tmp_path
        self.dir = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        self.syncer = Syncer(self.loop, level, [self.dir])
        self.answers: list[tuple[str, OSError | None]] = []
        self.calls: list[tuple[str, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self._fsync, self._syncfs = os.fsync, syncer.syncfs
        monkeypatch.setattr(os, "fsync", self._record("fsync", self._fsync))
        monkeypatch.setattr(syncer, "syncfs", self._record("syncfs", self._syncfs))

    def _record(self, name: str, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(fd: int) -> None:
            self.gate.wait(10)
            self.calls.append((name, fd))
            real(fd)

        return call

    def file(self, name: str) -> int:
        fd = os.open(self.tmp_path / name, os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(fd, name.encode())
        return fd

    def commit(self, name: str, *, lazy: bool = False) -> int:
        fd = self.file(name)
        self.syncer.commit([fd], [self.dir], self.done(name), lazy=lazy)
        return fd

    def done(self, name: str) -> Callable[[OSError | None], None]:
        return lambda error: self.answers.append((name, error))

    def turn_until_idle(self) -> None:
        end_mono = clock.mono() + 10
        while not self.syncer.idle():
            assert clock.mono() < end_mono
            self.loop.turn(1)

    def names(self) -> list[str]:
        return [name for name, error in self.answers if error is None]

    def close(self) -> None:
        self.gate.set()
        self.syncer.close()
        self.loop.close()
        os.close(self.dir)


@pytest.fixture
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Durability], Bench]]:
    made: list[Bench] = []

    def build(level: Durability) -> Bench:
        made.append(Bench(tmp_path, level, monkeypatch))
        return made[-1]

    yield build
    for bench in made:
        bench.close()


Make = Callable[[Durability], Bench]


def is_closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError as exc:
        return exc.errno == errno.EBADF
    return False


def test_commit_full_syncs_file_and_directory_then_closes_only_the_file(
    make: Make,
) -> None:
    bench = make(Durability.FULL)
    fd = bench.commit("a")
    assert bench.answers == []
    bench.turn_until_idle()
    assert bench.answers == [("a", None)]
    assert sorted(bench.calls) == sorted([("fsync", fd), ("fsync", bench.dir)])
    assert is_closed(fd)
    assert not is_closed(bench.dir)


def test_commit_qmail_level_syncs_files_only_and_never_syncfs(make: Make) -> None:
    bench = make(Durability.QMAIL)
    bench.gate.clear()
    fds = [bench.commit(str(n)) for n in range(SYNCFS_FROM + 3)]
    bench.gate.set()
    bench.turn_until_idle()
    assert sorted(bench.calls) == sorted(("fsync", fd) for fd in fds)


def test_commit_none_syncs_nothing_and_does_not_answer_reentrantly(make: Make) -> None:
    bench = make(Durability.NONE)
    fd = bench.commit("a")
    assert bench.answers == []
    assert not bench.syncer.idle()
    bench.turn_until_idle()
    assert bench.answers == [("a", None)]
    assert bench.calls == []
    assert is_closed(fd)


def test_requests_waiting_when_a_round_starts_share_it(make: Make) -> None:
    bench = make(Durability.FULL)
    bench.gate.clear()
    first = bench.commit("first")
    # The thread is inside its first round, or about to take what waits; either
    # way everything committed while the gate is shut costs at most one more.
    for n in range(SYNCFS_FROM):
        bench.commit(f"more{n}")
    bench.gate.set()
    bench.turn_until_idle()
    assert bench.names() == ["first", *(f"more{n}" for n in range(SYNCFS_FROM))]
    syncs = [call for call in bench.calls if call[0] == "syncfs"]
    assert syncs == [("syncfs", bench.dir)]
    assert len(bench.calls) <= 3
    assert is_closed(first)


def test_directories_named_twice_are_synced_once_per_round(make: Make) -> None:
    bench = make(Durability.FULL)
    fds = [bench.file("a"), bench.file("b")]
    bench.syncer.commit(fds, [bench.dir, bench.dir], bench.done("ab"))
    bench.turn_until_idle()
    assert sorted(bench.calls) == sorted(("fsync", fd) for fd in [*fds, bench.dir])


def test_lazy_waits_a_tenth_of_a_second_alone(make: Make) -> None:
    bench = make(Durability.FULL)
    start_mono = clock.mono()
    bench.commit("lazy", lazy=True)
    bench.turn_until_idle()
    assert clock.mono() - start_mono >= syncer.LAZY_S
    assert bench.names() == ["lazy"]


def test_lazy_rides_along_with_an_eager_one_in_commit_order(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncer, "LAZY_S", 60.0)
    bench = make(Durability.FULL)
    start_mono = clock.mono()
    bench.commit("lazy", lazy=True)
    bench.commit("eager")
    bench.turn_until_idle()
    assert bench.names() == ["lazy", "eager"]
    assert clock.mono() - start_mono < 30.0


def test_failing_descriptor_fails_every_request_of_its_round(make: Make) -> None:
    bench = make(Durability.FULL)
    reading, writing = os.pipe()
    bench.commit("lazy", lazy=True)
    # fsync of a pipe is EINVAL, a real failure inside the round.
    bench.syncer.commit([writing], [], bench.done("pipe"))
    bench.turn_until_idle()
    os.close(reading)
    assert [name for name, _ in bench.answers] == ["lazy", "pipe"]
    assert all(error is not None for _, error in bench.answers)
    assert {error.errno for _, error in bench.answers if error} == {errno.EINVAL}
    assert is_closed(writing)
    bench.commit("next")
    bench.turn_until_idle()
    assert bench.answers[-1] == ("next", None)


def test_syncfs_error_fails_the_whole_round(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(Durability.FULL)

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(syncer, "syncfs", broken)
    fds = [bench.file(str(n)) for n in range(SYNCFS_FROM)]
    bench.syncer.commit(fds, [], bench.done("many"))
    bench.turn_until_idle()
    ((_, error),) = bench.answers
    assert error is not None
    assert error.errno == errno.EIO
    assert all(map(is_closed, fds))


def test_close_error_fails_that_request_only(make: Make) -> None:
    bench = make(Durability.NONE)
    fd = bench.file("gone")
    os.close(fd)
    bench.syncer.commit([fd], [], bench.done("gone"))
    bench.commit("good")
    bench.turn_until_idle()
    (_, gone), (_, good) = bench.answers
    assert gone is not None
    assert gone.errno == errno.EBADF
    assert good is None


def test_syncfs_on_a_closed_descriptor_raises_its_errno(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    syncer.syncfs(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        syncer.syncfs(fd)


def test_level_may_change_while_requests_wait_and_order_holds(make: Make) -> None:
    bench = make(Durability.FULL)
    bench.gate.clear()
    bench.commit("a")
    bench.syncer.set_level(Durability.NONE)
    bench.commit("b")
    bench.gate.set()
    bench.turn_until_idle()
    assert bench.names() == ["a", "b"]


def test_close_finishes_what_waits_even_lazy(make: Make) -> None:
    bench = make(Durability.FULL)
    bench.commit("a")
    bench.commit("lazy", lazy=True)
    bench.syncer.close()
    bench.loop.turn(0)
    assert bench.names() == ["a", "lazy"]
    bench.commit("after")
    bench.turn_until_idle()
    assert bench.names() == ["a", "lazy", "after"]


def test_bug_in_the_thread_ends_the_loop_rather_than_hanging(make: Make) -> None:
    bench = make(Durability.FULL)
    bench.syncer.commit([], [-5], bench.done("bug"))
    with pytest.raises(ValueError, match="negative"):
        bench.turn_until_idle()


def test_sync_now_syncs_directories_only_at_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    for level in Durability:
        sync_now([fd, fd], level)
    assert calls == [fd]
    os.close(fd)


def test_without_a_thread_requests_fail_until_there_is_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_target: object) -> None:
        raise RuntimeError("can't start new thread")

    bench = make(Durability.FULL)
    with monkeypatch.context() as patch:
        patch.setattr(threads, "start", no_thread)
        fd = bench.commit("first")
        bench.turn_until_idle()
    [(name, error)] = bench.answers
    assert name == "first"
    assert error is not None
    assert error.errno == errno.EAGAIN
    assert is_closed(fd)
    assert not bench.calls
    bench.commit("second")
    bench.turn_until_idle()
    assert bench.names() == ["second"]
