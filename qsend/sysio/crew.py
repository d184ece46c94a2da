"""Many deliveries at once with two threads, and one more for each that blocks.

The loop advances each delivery until something must be durable; a thread of its own
syncs for all that wait, round after round, while the loop advances others. So a
delivery costs no thread, a round is shared by as many as are under way, and what a
round ended is told at once. What may block (a program, a lock, a forward, a long
message) goes on in a thread that ends with it. Whoever gets only one delivery or two,
as most accounts do, syncs in the loop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

from qsend.core.errors import TempFail
from qsend.sysio import threads
from qsend.sysio.durable import BLOCKS, Steps, SyncSet, finish

FEW = 2
"""What waits for the disk with no more beside it is not worth a thread: making one
costs half of a millisecond, a fifth of what a delivery takes."""

_ACTIVE_MAX = 128
"""Deliveries under way, but for those that block: some five descriptors each."""

_Result = TypeVar("_Result")
_Due = tuple[Steps[_Result], OSError | None]
"""What to go on with, and what became of the syncing it waited for."""
_Waiting = list[tuple[Steps[_Result], int]]
"""What waits, and for which descriptor."""


class Crew(Generic[_Result]):
    """Carries out whatever is added; every result is given to `on_ends` once.

    All methods are for the loop's thread.
    """

    def __init__(
        self,
        on_ends: Callable[[list[_Result]], None],
        call_soon: Callable[[Callable[[], None]], None],
    ) -> None:
        """Start no thread yet.

        Args:
            on_ends: called in any thread, with what ended between two rounds: whoever
                is on the way of the reports is woken once for all of them.
            call_soon: calls back on the loop's thread, in its next turn; from any.
        """
        self._on_ends = on_ends
        self._call_soon = call_soon
        self._new: deque[Steps[_Result]] = deque()
        self._active = 0
        self._is_turn_due = False
        self._own_syncs = SyncSet()
        self._has_thread = False
        self._changed = threading.Condition()
        self._waiting: _Waiting[_Result] = []

    def add(self, steps: Steps[_Result]) -> None:
        """Have `steps` carried out. It must raise nothing but what it is thrown."""
        self._new.append(steps)
        if not self._is_turn_due:
            self._is_turn_due = True
            self._call_soon(self._begin)

    def go_on_blocking(self, steps: Steps[_Result]) -> None:
        """Have the rest of `steps` carried out, which have just yielded BLOCKS."""
        ended: list[_Result] = []
        self._block(steps, ended)
        if ended:
            self._on_ends(ended)

    def _begin(self) -> None:
        """Advance what was added since the last turn, as far as there is room."""
        self._is_turn_due = False
        self._go_on([])

    def _go_on(self, due: Sequence[_Due[_Result]]) -> None:
        """Advance these and what is new, and have synced what they wait for."""
        due = [*due, *self._take()]
        while due:
            waiting = self._advance_all(due)
            due = []
            if waiting and not self._is_given(waiting):
                due = _synced(waiting, self._own_syncs)
            due += self._take()

    def _take(self) -> list[_Due[_Result]]:
        count = min(len(self._new), _ACTIVE_MAX - self._active)
        self._active += count
        return [(self._new.popleft(), None) for _ in range(count)]

    def _advance_all(self, due: Sequence[_Due[_Result]]) -> _Waiting[_Result]:
        waiting: _Waiting[_Result] = []
        ended: list[_Result] = []
        for steps, error in due:
            fd = self._advance(steps, error, ended)
            if fd is not None:
                waiting.append((steps, fd))
        self._active -= len(due) - len(waiting)
        if ended:
            self._on_ends(ended)
        return waiting

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
        return fd if fd != BLOCKS else self._block(steps, ended)

    def _block(self, steps: Steps[_Result], ended: list[_Result]) -> int | None:
        try:
            # A program may run for hours; the process must be able to end.
            threads.start(lambda: self._on_ends([finish(steps)]))
        except RuntimeError:
            no_thread = TempFail("There is no thread to be had now. (#4.3.0)")
            return self._advance(steps, no_thread, ended)
        return None

    def _is_given(self, waiting: _Waiting[_Result]) -> bool:
        """Whether the thread syncs for these; it is started when it is worth it."""
        if not self._has_thread:
            if len(waiting) <= FEW:
                return False
            try:
                threads.start(self._sync_rounds)
            except RuntimeError:
                return False  # there is none to be had: the loop waits for the disk
            self._has_thread = True
        with self._changed:
            self._waiting += waiting
            self._changed.notify()
        return True

    def _sync_rounds(self) -> None:
        """The thread: everything that waits when a round begins shares it."""
        syncs = SyncSet()
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                waiting, self._waiting = self._waiting, []
            self._call_soon(partial(self._go_on, _synced(waiting, syncs)))


def _synced(waiting: _Waiting[_Result], syncs: SyncSet) -> list[_Due[_Result]]:
    errors: Mapping[int, OSError] = syncs.sync({fd for _, fd in waiting})
    return [(steps, errors.get(fd)) for steps, fd in waiting]
