from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from qsend.sysio import threads
from qsend.sysio.spread import SHARE_MIN, THREADS, Threads, in_turn


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 8, 9, 100])
def test_results_are_in_the_order_of_the_things(count: int) -> None:
    spread = Threads()
    try:
        want = [str(each) for each in range(count)]
        assert spread(str, range(count)) == in_turn(str, range(count)) == want
    finally:
        spread.close()


def test_things_are_done_at_the_same_time() -> None:
    spread = Threads()
    meeting = threading.Barrier(THREADS, timeout=20)
    try:
        things = range(THREADS * SHARE_MIN)
        assert set(spread(lambda _: meeting.wait(), things)) == set(range(THREADS))
    finally:
        spread.close()


def test_what_is_raised_reaches_the_caller() -> None:
    spread = Threads()
    try:
        with pytest.raises(ZeroDivisionError):
            spread(lambda each: 1 // each, [3, 2, 1, 0])
    finally:
        spread.close()


@pytest.mark.parametrize("threads_left", [0, 1, 3])
def test_without_threads_the_caller_does_it_all(
    threads_left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(range(threads_left))
    start = threads.start

    def rarely(target: Callable[[], None]) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(target)

    spread = Threads()
    monkeypatch.setattr(threads, "start", rarely)
    try:
        assert spread(str, range(100)) == [str(each) for each in range(100)]
    finally:
        spread.close()
