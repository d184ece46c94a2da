"""Starting a thread, or hearing that there is none to be had.

threading.Thread.start waits for ever for a thread that the system has made and that
has no memory to begin.
"""

from __future__ import annotations

import _thread
import queue
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


class Pool:
    """Threads that are started when first needed, and kept.

    Must not: be used by more than one thread.
    """

    def __init__(self, most: int) -> None:
        """Start none yet; `most` at a time."""
        self._most = most
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def add(self, job: Callable[[], None]) -> None:
        """Have `job`, which raises nothing, called by one of them, soon.

        Raises: RuntimeError when it takes one more and there is none; it is not
            called then.
        """
        if not self._idle.acquire(blocking=False) and self._count < self._most:
            start(self._work)
            self._count += 1
        self._jobs.put(job)

    def close(self) -> None:
        """Let them end, once all has been done that was added."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            self._idle.release()
