from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.sysio import durable
from qsend.sysio.durable import BLOCKS, Steps, SyncSet, finish


@pytest.fixture
def fds(tmp_path: Path) -> Iterator[list[int]]:
    made = [os.open(tmp_path / str(n), os.O_CREAT | os.O_WRONLY) for n in range(8)]
    yield made
    for fd in made:
        os.close(fd)


class Calls:
    """The syncing calls, noted; those named in `failing` fail."""

    def __init__(self, patch: pytest.MonkeyPatch, *failing: str) -> None:
        self.made: list[tuple[str, int]] = []
        for name, where in (("fsync", os), ("syncfs", durable)):

            def call(fd: int, name: str = name) -> None:
                self.made.append((name, fd))
                if name in failing:
                    raise OSError(errno.EIO, "broken disk")

            patch.setattr(where, name, call)


def test_finish_syncs_what_is_yielded_and_returns_the_result(
    fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> Steps[str]:
        yield fds[0]
        yield BLOCKS
        yield fds[1]
        return "done"

    calls = Calls(monkeypatch)
    assert finish(work()) == "done"
    assert calls.made == [("fsync", fds[0]), ("fsync", fds[1])]


def test_finish_throws_the_error_of_a_sync_in(
    fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> Steps[str]:
        try:
            yield fds[0]
        except OSError as exc:
            return f"errno {exc.errno}"
        return "durable"

    Calls(monkeypatch, "fsync")
    assert finish(work()) == f"errno {errno.EIO}"


def test_few_are_synced_one_by_one_and_a_directory_once(
    tmp_path: Path, fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    dirs = [os.open(tmp_path, os.O_RDONLY) for _ in range(20)]
    syncs = SyncSet()
    assert syncs.sync([*dirs, fds[0]]) == {}
    assert len(calls.made) == 2
    assert {name for name, _ in calls.made} == {"fsync"}
    assert fds[0] in {fd for _, fd in calls.made}
    syncs.close()
    for fd in dirs:
        os.close(fd)


def test_many_are_synced_by_one_syncfs_opened_before_they_were_written(
    fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    syncs = SyncSet()
    assert syncs.sync(fds) == {}
    # The first round has no descriptor older than its files.
    assert sorted(calls.made) == sorted(("fsync", fd) for fd in fds)
    calls.made.clear()
    assert syncs.sync(fds) == {}
    [(name, fd)] = calls.made
    assert name == "syncfs"
    assert os.fstat(fd).st_dev == os.fstat(fds[0]).st_dev
    syncs.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("failing", ["fsync", "syncfs"])
def test_error_is_that_of_all_on_the_file_system(
    fds: list[int], monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    syncs = SyncSet()
    syncs.sync(fds[:1])
    Calls(monkeypatch, failing)
    asked = fds[:3] if failing == "fsync" else fds
    failed = syncs.sync(asked)
    assert set(failed) == set(asked)
    assert {error.errno for error in failed.values()} == {errno.EIO}
    syncs.close()


def test_other_file_systems_do_not_share_the_error(
    fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = os.memfd_create("other")
    real_fsync = os.fsync

    def fsync(fd: int) -> None:
        if os.fstat(fd).st_dev != os.fstat(memory).st_dev:
            raise OSError(errno.EIO, "broken disk")
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    syncs = SyncSet()
    assert set(syncs.sync([memory, *fds[:2]])) == set(fds[:2])
    syncs.close()
    os.close(memory)
