"""One queue, one manager: the lock is shared with qmail-send and inherited."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from qsend.core.errors import Fatal
from qsend.sysio.fork import fork_child
from qsend.sysio.runlock import lock_queue


@pytest.fixture
def queue(tmp_path: Path) -> str:
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock/sendmutex").touch()
    return str(tmp_path)


def test_second_lock_is_refused_until_the_first_is_closed(queue: str) -> None:
    first = lock_queue(queue)
    with pytest.raises(Fatal, match="qmail-send is already running"):
        lock_queue(queue)
    os.close(first)
    os.close(lock_queue(queue))


def test_lock_of_a_real_qmail_send_is_seen(queue: str) -> None:
    with open(f"{queue}/lock/sendmutex", "a") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(Fatal, match="already running"):
            lock_queue(queue)


def test_lock_lasts_as_long_as_a_child_keeps_it(queue: str) -> None:
    fd = lock_queue(queue)
    keeps = fork_child(lambda: signal.pause() or 0, (fd,))  # type: ignore[func-returns-value]
    os.close(fd)
    try:
        with pytest.raises(Fatal, match="already running"):
            lock_queue(queue)
    finally:
        os.kill(keeps, signal.SIGKILL)
        os.waitpid(keeps, 0)
    os.close(lock_queue(queue))


def test_missing_mutex_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"unable to open mutex: .*lock/sendmutex: No such"):
        lock_queue(str(tmp_path))


def test_lock_is_no_link_to_another_file(queue: str) -> None:
    os.rename(f"{queue}/lock/sendmutex", f"{queue}/lock/other")  # noqa: TID251
    os.symlink("other", f"{queue}/lock/sendmutex")
    with pytest.raises(Fatal, match="unable to open mutex"):
        lock_queue(queue)
