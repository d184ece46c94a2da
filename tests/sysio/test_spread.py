from __future__ import annotations

import threading

import pytest

from qsend.sysio.spread import SHARE_MIN, THREADS, Threads, in_turn


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 8, 9, 100])
def test_results_are_in_the_order_of_the_things(count: int) -> None:
    threads = Threads()
    try:
        want = [str(each) for each in range(count)]
        assert threads(str, range(count)) == in_turn(str, range(count)) == want
    finally:
        threads.close()


def test_things_are_done_at_the_same_time() -> None:
    threads = Threads()
    meeting = threading.Barrier(THREADS, timeout=20)
    try:
        things = range(THREADS * SHARE_MIN)
        assert set(threads(lambda _: meeting.wait(), things)) == set(range(THREADS))
    finally:
        threads.close()


def test_what_is_raised_reaches_the_caller() -> None:
    threads = Threads()
    try:
        with pytest.raises(ZeroDivisionError):
            threads(lambda each: 1 // each, [3, 2, 1, 0])
    finally:
        threads.close()


@pytest.mark.parametrize("threads_left", [0, 1, 3])
def test_without_threads_the_caller_does_it_all(
    threads_left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(range(threads_left))
    start = threading.Thread.start

    def rarely(self: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(self)

    threads = Threads()
    monkeypatch.setattr(threading.Thread, "start", rarely)
    try:
        assert threads(str, range(100)) == [str(each) for each in range(100)]
    finally:
        threads.close()
