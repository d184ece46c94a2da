from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from qsend.sysio import clock
from qsend.sysio.sharedsync import SharedSync


class SlowFsync:
    """fsync that a test lets go one by one, and counts."""

    def __init__(self, error: OSError | None = None) -> None:
        self.started = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)
        self.calls = 0
        self.error = error

    def __call__(self, fd: int) -> None:
        self.calls += 1
        self.started.release()
        assert self.allowed.acquire(timeout=10)
        if self.error is not None:
            raise self.error
        os.fdatasync(fd)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowFsync:
    fsync = SlowFsync()
    monkeypatch.setattr(os, "fsync", fsync)
    return fsync


def run_all(
    sync: SharedSync, fds: list[int]
) -> tuple[list[threading.Thread], list[int]]:
    errors: list[int] = []

    def work(fd: int) -> None:
        try:
            sync.sync(fd)
        except OSError as exc:
            errors.append(exc.errno or -1)

    threads = [threading.Thread(target=work, args=(fd,)) for fd in fds]
    for thread in threads:
        thread.start()
    return threads, errors


def wait_until_asked(sync: SharedSync, calls: int) -> None:
    deadline_mono = clock.mono() + 10
    while sync.asked < calls:
        assert clock.mono() < deadline_mono
        os.sched_yield()


@pytest.mark.parametrize("error", [None, OSError(5, "broken")])
def test_sharedsync_late_comers_share_the_next_round(
    tmp_path: Path, slow: SlowFsync, error: OSError | None
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    sync = SharedSync()
    first, first_errors = run_all(sync, [fd])
    assert slow.started.acquire(timeout=10)
    later, later_errors = run_all(sync, [fd] * 5)
    wait_until_asked(sync, 6)
    assert slow.calls == 1
    slow.allowed.release()
    assert slow.started.acquire(timeout=10)
    slow.error = error
    slow.allowed.release()
    for thread in first + later:
        thread.join(10)
        assert not thread.is_alive()
    assert slow.calls == 2
    assert first_errors == []
    assert later_errors == ([] if error is None else [5] * 5)
    sync.close()
    os.close(fd)


def test_sharedsync_round_of_many_is_one_syncfs(
    tmp_path: Path, slow: SlowFsync, monkeypatch: pytest.MonkeyPatch
) -> None:
    covered: list[int] = []
    monkeypatch.setattr("qsend.sysio.sharedsync.syncfs", covered.append)
    fds = [os.open(tmp_path / str(n), os.O_CREAT | os.O_WRONLY) for n in range(8)]
    sync = SharedSync()
    first, _ = run_all(sync, fds[:1])
    assert slow.started.acquire(timeout=10)
    later, errors = run_all(sync, fds[1:])
    wait_until_asked(sync, 8)
    slow.allowed.release()
    for thread in first + later:
        thread.join(10)
        assert not thread.is_alive()
    assert slow.calls == 1
    assert len(covered) == 1
    assert errors == []
    assert os.fstat(covered[0]).st_dev == os.fstat(fds[0]).st_dev
    sync.close()
    for fd in fds:
        os.close(fd)
