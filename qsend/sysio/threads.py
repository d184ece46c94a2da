"""Starting a thread, or hearing that there is none to be had.

threading.Thread.start waits for ever for a thread that the system has made and that
has no memory to begin.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable

BEGIN_S = 5.0
"""A thread that has not begun by then never will."""


def start(target: Callable[[], None]) -> None:
    """Call `target` in a thread that the end of the process does not wait for.

    What it raises is for threading.excepthook.
    Raises: RuntimeError when there is no thread, or no memory for one; `target` is
        not called then.
    """
    claim, begun = threading.Lock(), threading.Event()

    def run() -> None:
        if not claim.acquire(blocking=False):
            return  # too late
        begun.set()
        try:
            target()
        except Exception:  # noqa: BLE001 - the thread's outermost handler
            kind, exc, trace = sys.exc_info()
            assert kind is not None
            args = threading.ExceptHookArgs((kind, exc, trace, None))
            threading.excepthook(args)

    _thread.start_new_thread(run, ())
    if not begun.wait(BEGIN_S) and claim.acquire(blocking=False):
        raise RuntimeError("a thread had no memory to begin")
