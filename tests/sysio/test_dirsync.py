from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from qsend.sysio import clock
from qsend.sysio.dirsync import DirSync


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


def run_all(sync: DirSync, fds: list[int]) -> tuple[list[threading.Thread], list[int]]:
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


def wait_until_asked(sync: DirSync, calls: int) -> None:
    deadline_mono = clock.mono() + 10
    while sync.asked < calls:
        assert clock.mono() < deadline_mono
        os.sched_yield()


@pytest.mark.parametrize("error", [None, OSError(5, "broken")])
def test_dirsync_late_comers_share_the_next_round(
    tmp_path: Path, slow: SlowFsync, error: OSError | None
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    sync = DirSync()
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
    os.close(fd)


def test_dirsync_other_directories_do_not_wait(tmp_path: Path, slow: SlowFsync) -> None:
    (tmp_path / "a").mkdir()
    fds = [os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "a", os.O_RDONLY)]
    threads, errors = run_all(DirSync(), fds)
    for _ in fds:
        assert slow.started.acquire(timeout=10)
    for _ in fds:
        slow.allowed.release()
    for thread in threads:
        thread.join(10)
    assert errors == []
    assert slow.calls == 2
    for fd in fds:
        os.close(fd)
