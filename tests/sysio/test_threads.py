from __future__ import annotations

import _thread
import queue
import threading
from collections.abc import Callable

import pytest

from qsend.sysio import threads


def test_target_is_called_in_a_thread_of_its_own() -> None:
    idents: list[int] = []
    ended = threading.Event()

    def target() -> None:
        idents.append(threading.get_ident())
        ended.set()

    threads.start(target)
    assert ended.wait(20)
    assert idents != [threading.get_ident()]


def test_what_is_raised_reaches_the_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[object] = []
    ended = threading.Event()

    def hook(args: threading.ExceptHookArgs) -> None:
        raised.append(args.exc_type)
        ended.set()

    monkeypatch.setattr(threading, "excepthook", hook)
    threads.start(lambda: [][0])
    assert ended.wait(20)
    assert raised == [IndexError]


def test_thread_that_does_not_begin_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late: list[Callable[[], None]] = []
    called: list[int] = []

    def never(run: Callable[[], None], _args: tuple[()]) -> None:
        late.append(run)

    monkeypatch.setattr(_thread, "start_new_thread", never)
    monkeypatch.setattr(threads, "BEGIN_S", 0.01)
    with pytest.raises(RuntimeError, match="no memory"):
        threads.start(lambda: called.append(1))
    # Should it begin after all, another has done the work.
    late[0]()
    assert not called


def test_pool_starts_no_more_threads_than_it_needs_or_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[int] = []
    start = threads.start

    def counted(target: Callable[[], None]) -> None:
        started.append(1)
        start(target)

    monkeypatch.setattr(threads, "start", counted)
    pool = threads.Pool(2)
    meeting = threading.Barrier(3, timeout=20)

    def meet() -> None:
        meeting.wait()

    for _ in range(2):
        pool.add(meet)
    meeting.wait()
    assert len(started) == 2
    done: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(100):
        pool.add(lambda number=number: done.put(number))  # type: ignore[misc]
    assert sorted(done.get(timeout=20) for _ in range(100)) == list(range(100))
    assert len(started) == 2
    pool.close()


def test_pool_that_gets_no_thread_does_not_do_it_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(_target: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    called: list[int] = []
    pool = threads.Pool(2)
    with monkeypatch.context() as patch:
        patch.setattr(threads, "start", no_thread)
        with pytest.raises(RuntimeError):
            pool.add(lambda: called.append(1))
    ended = threading.Event()
    pool.add(ended.set)
    assert ended.wait(20)
    assert not called
    pool.close()
