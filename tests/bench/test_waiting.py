"""The messages that wait in W6: every round begins with all of them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from bench import waiting
from qsend.core.model import Channel, MessId
from qsend.formats import paths
from qsend.sysio import clock
from qsend.sysio.fsq import Queue
from tests.longqueue import in_processes
from tests.queues import make_queue

COUNT = 200
HALF_A_DAY_S = 43200


def two_queues(path: Path) -> tuple[Path, Path]:
    (path / "first").mkdir()
    (path / "second").mkdir()
    return make_queue(path / "first"), make_queue(path / "second")


def scheduled(queue: Path) -> dict[MessId, int]:
    """The messages, complete ones, and when each is due."""
    files = Queue(str(queue))
    found = {}
    for messid in files.list_info():
        assert (queue / paths.mess(messid)).stat().st_ino == messid
        due = files.due(Channel.REMOTE, messid)
        assert due is not None
        found[messid] = due
    files.close()
    return found


def recips(queue: Path) -> Counter[bytes]:
    files = Queue(str(queue))
    found = (files.read_recip(Channel.REMOTE, each, 0) for each in files.list_info())
    return Counter(found)


def remove(queue: Path, messid: MessId) -> None:
    for path in (paths.recips(Channel.REMOTE, messid), paths.info(messid)):
        (queue / path).unlink()
    (queue / paths.mess(messid)).unlink()


@pytest.mark.root
def test_what_a_round_took_is_made_anew_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(waiting, "WHERE", str(place))
    first, second = two_queues(tmp_path)
    with waiting.made(COUNT) as old:
        old.lend(first)
        before = scheduled(first)
        assert len(before) == COUNT
        assert min(before.values()) > clock.now() + HALF_A_DAY_S
        was_there = recips(first)

        gone, hasty, *_ = before
        remove(first, gone)
        os.utime(first / paths.recips(Channel.REMOTE, hasty), (0, 0))
        old.take_back(first)
        assert not first.exists()

        old.lend(second)
        after = scheduled(second)
        assert len(after) == COUNT
        assert min(after.values()) > clock.now() + HALF_A_DAY_S
        # Nothing could arrive twice: the new one has an address of its own.
        both = was_there | recips(second)
        assert set(both.values()) == {1}
        assert both == Counter(old.recips())
        assert len(both) == COUNT + 1
        old.take_back(second)
    assert not list(place.iterdir())


@pytest.mark.root
def test_a_queue_that_a_failed_round_lost_is_made_again(tmp_path: Path) -> None:
    first, second = two_queues(tmp_path)
    with waiting.made(COUNT) as old:
        old.lend(first)
        old.lend(second)
        assert recips(second) == Counter(old.recips())
        assert not recips(first) & recips(second)


def test_no_process_outlives_one_that_failed() -> None:
    def sleep() -> int:
        signal.pause()
        return 0

    with pytest.raises(RuntimeError, match="wait status 256"):
        in_processes([sleep, lambda: 1])
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
