"""The trigger FIFO with a real FIFO and a real epoll."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.sysio.trigger import Trigger, pull


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = str(tmp_path / "trigger")
    os.mkfifo(path)
    return path


@pytest.fixture
def trigger(fifo: str) -> Iterator[Trigger]:
    opened = Trigger(fifo)
    yield opened
    opened.close()


def is_pulled(trigger: Trigger) -> bool:
    return bool(select.select([trigger.fileno()], [], [], 0)[0])


def test_trigger_unpulled_is_silent(trigger: Trigger) -> None:
    assert not is_pulled(trigger)


def test_trigger_pulled_is_readable_until_reset(trigger: Trigger, fifo: str) -> None:
    for _ in range(3):
        pull(fifo)
    assert is_pulled(trigger)
    trigger.reset()
    assert not is_pulled(trigger)
    pull(fifo)
    assert is_pulled(trigger)


def test_trigger_whose_fifo_was_replaced_is_found_by_reset(
    trigger: Trigger, fifo: str
) -> None:
    Path(fifo).unlink()
    os.mkfifo(fifo)
    pull(fifo)
    assert not is_pulled(trigger)
    trigger.reset()
    pull(fifo)
    assert is_pulled(trigger)


def test_pull_without_listener_or_fifo_is_quiet(fifo: str) -> None:
    pull(fifo)
    pull(fifo + ".none")
    assert os.listdir(os.path.dirname(fifo)) == ["trigger"]


def test_pull_of_full_fifo_returns_at_once(trigger: Trigger, fifo: str) -> None:
    writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.close(writer)
    pull(fifo)
    assert is_pulled(trigger)


def test_trigger_without_fifo_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Trigger(str(tmp_path / "none"))
