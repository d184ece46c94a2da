"""What is due when: (due, messid) pairs, tens of bytes each.

A pair is one integer, due << 64 | messid, in a heap; the smallest is the next.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from qsend.core.model import MessId

_MASK = (1 << 64) - 1


class Dues:
    """One channel's schedule of messages that are not in memory."""

    def __init__(self) -> None:
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[tuple[int, MessId]]:
        """Every (due, messid), in no order."""
        return ((item >> 64, MessId(item & _MASK)) for item in self._heap)

    def push(self, due: int, messid: MessId) -> None:
        """Schedule one message; a due before the epoch counts as the epoch."""
        heapq.heappush(self._heap, max(due, 0) << 64 | messid)

    def load(self, pairs: Iterator[tuple[int, MessId]]) -> None:
        """Schedule many at once; faster than pushing each."""
        self._heap += [max(due, 0) << 64 | messid for due, messid in pairs]
        heapq.heapify(self._heap)

    def pop_due(self, now: int) -> tuple[int, MessId] | None:
        """The (due, messid) that is longest due, or None."""
        if not self._heap or self._heap[0] >> 64 > now:
            return None
        item = heapq.heappop(self._heap)
        return item >> 64, MessId(item & _MASK)

    def next_due(self) -> int | None:
        """When the next one is due."""
        return self._heap[0] >> 64 if self._heap else None

    def remove(self, messid: MessId) -> int | None:
        """Take one message out; its due, or None when it was not there."""
        for at, item in enumerate(self._heap):
            if item & _MASK == messid:
                self._heap[at] = self._heap[-1]
                self._heap.pop()
                heapq.heapify(self._heap)
                return item >> 64
        return None

    def take_all(self) -> list[tuple[int, MessId]]:
        """Empty the schedule; the pairs in order of their due."""
        pairs = [(item >> 64, MessId(item & _MASK)) for item in sorted(self._heap)]
        self._heap = []
        return pairs

    def all_now(self, now: int) -> None:
        """Everything is due now; the order stays."""
        for due, messid in self.take_all():
            self._heap.append(min(due, now) << 64 | messid)
        heapq.heapify(self._heap)
