"""Two threads that carry out many deliveries, and one more for each that blocks.

A worker takes several deliveries, advances each until something must be durable,
and syncs for all of them at once; meanwhile the other worker advances its own. So a
delivery costs no thread of its own, and a round of syncing is shared by as many as
are under way. What may block (a program, a lock, a forward, a long message) goes on
in a thread that ends with it. Whoever gets only one delivery or two, as most
accounts do, does them in its loop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from qsend.core.errors import TempFail
from qsend.sysio import threads
from qsend.sysio.durable import BLOCKS, Steps, SyncSet, finish

WORKERS = 2
"""While one waits for the disk the other has the processor."""

FEW = 2
"""What comes in with no more beside it, and finds no thread, is not worth one: making
a thread costs half of a millisecond, a fifth of what a delivery takes."""

_BATCH_MAX = 64
"""Deliveries that one worker has at a time: some ten descriptors each."""

_Result = TypeVar("_Result")
_Due = tuple[Steps[_Result], OSError | None]
"""What to go on with, and what became of the syncing it waited for."""


class Crew(Generic[_Result]):
    """Carries out whatever is added; every result is given to `on_ends` once."""

    def __init__(
        self,
        on_ends: Callable[[list[_Result]], None],
        call_soon: Callable[[Callable[[], None]], None],
    ) -> None:
        """Start no thread yet.

        Args:
            on_ends: called in any thread. It gets what ended between two rounds of
                syncing in one list: whoever is on the way of the reports is woken
                once for all of them.
            call_soon: calls back after what comes in at the same time was added.
        """
        self._on_ends = on_ends
        self._call_soon = call_soon
        self._changed = threading.Condition()
        self._queue: deque[Steps[_Result]] = deque()
        self._idle = 0
        self._workers = 0
        self._is_begin_due = False
        self._own_syncs = SyncSet()

    def add(self, steps: Steps[_Result]) -> None:
        """Have `steps` carried out. It must raise nothing but what it is thrown."""
        with self._changed:
            self._queue.append(steps)
            if self._idle:
                self._changed.notify()
                return
        if self._workers < WORKERS and not self._is_begin_due:
            self._is_begin_due = True
            self._call_soon(self._begin)

    def _begin(self) -> None:
        """Have threads for what was added; a few are done here and now."""
        self._is_begin_due = False
        while self._lacks_worker():
            try:
                threads.start(self._work)
            except RuntimeError:
                break  # there is none to be had: those there are have it all
            self._workers += 1
        if not self._workers:
            self._do_here()

    def _lacks_worker(self) -> bool:
        with self._changed:
            count = len(self._queue)
            if not self._workers:
                return count > FEW
            return count > 0 and not self._idle and self._workers < WORKERS

    def _do_here(self) -> None:
        with self._changed:
            due: list[_Due[_Result]] = [(each, None) for each in self._queue]
            self._queue.clear()
        while due:
            due = self._go_on(due, self._own_syncs)

    def _work(self) -> None:
        syncs = SyncSet()
        due: list[_Due[_Result]] = []
        while True:
            due += [(steps, None) for steps in self._take(len(due))]
            due = self._go_on(due, syncs)

    def _go_on(self, due: list[_Due[_Result]], syncs: SyncSet) -> list[_Due[_Result]]:
        """Advance each, and make durable what they wait for."""
        waiting: list[tuple[Steps[_Result], int]] = []
        ended: list[_Result] = []
        for steps, error in due:
            fd = self._advance(steps, error, ended)
            if fd is not None:
                waiting.append((steps, fd))
        if ended:
            self._on_ends(ended)
        errors = syncs.sync({fd for _, fd in waiting})
        return [(steps, errors.get(fd)) for steps, fd in waiting]

    def _take(self, have: int) -> list[Steps[_Result]]:
        """New work: its share of what waits; with nothing to do, at least one."""
        with self._changed:
            while not have and not self._queue:
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            share = min(-(-len(self._queue) // WORKERS), _BATCH_MAX - have)
            return [self._queue.popleft() for _ in range(share)]

    def _advance(
        self, steps: Steps[_Result], error: Exception | None, ended: list[_Result]
    ) -> int | None:
        """Up to the next descriptor that must be synced.

        None when there is none: its result is in `ended`, or another thread has it.
        """
        try:
            fd = next(steps) if error is None else steps.throw(error)
        except StopIteration as end:
            ended.append(end.value)
            return None
        if fd != BLOCKS:
            return fd
        try:
            # A program may run for hours; the process must be able to end.
            threads.start(lambda: self._run_alone(steps))
        except RuntimeError:
            no_thread = TempFail("There is no thread to be had now. (#4.3.0)")
            return self._advance(steps, no_thread, ended)
        return None

    def _run_alone(self, steps: Steps[_Result]) -> None:
        self._on_ends([finish(steps)])
