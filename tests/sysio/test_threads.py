from __future__ import annotations

import _thread
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
