"""What is due when: (due, messid) pairs, tens of bytes each.

A pair is one integer, due << 64 | messid, in a heap; the smallest is the next. To
find those for one destination every message has to be read; a search takes them
out a few at a time, and whoever looks at them puts back what does not match.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator

from qsend.core.model import MessId

_MASK = (1 << 64) - 1


class Dues:
    """One channel's schedule of messages that are not in memory."""

    def __init__(self) -> None:
        self._heap: list[int] = []
        # What a search has not reached yet, the next at the end.
        self._searched: list[int] = []

    def __len__(self) -> int:
        return len(self._heap) + len(self._searched)

    def __iter__(self) -> Iterator[tuple[int, MessId]]:
        """Every (due, messid), in no order."""
        return (_pair(item) for item in (*self._heap, *self._searched))

    def push(self, due: int, messid: MessId) -> None:
        """Schedule one message; a due before the epoch counts as the epoch."""
        heapq.heappush(self._heap, max(due, 0) << 64 | messid)

    def load(self, pairs: Iterator[tuple[int, MessId]]) -> None:
        """Schedule many at once; faster than pushing each."""
        self._heap += [max(due, 0) << 64 | messid for due, messid in pairs]
        heapq.heapify(self._heap)

    def shift(self, seconds: int) -> None:
        """Move all by so much; backwards when the clock was set back."""
        for items in (self._heap, self._searched):
            items[:] = [
                max((item >> 64) + seconds, 0) << 64 | item & _MASK for item in items
            ]
        heapq.heapify(self._heap)

    def pop_due(self, now: int) -> tuple[int, MessId] | None:
        """The (due, messid) that is longest due, or None."""
        if not self._heap or self._heap[0] >> 64 > now:
            return None
        return _pair(heapq.heappop(self._heap))

    def next_due(self) -> int | None:
        """When the next one is due."""
        return self._heap[0] >> 64 if self._heap else None

    def remove(self, messid: MessId) -> int | None:
        """Take one message out; its due, or None when it was not there."""
        for items in (self._heap, self._searched):
            for item in items:
                if item & _MASK == messid:
                    items.remove(item)
                    heapq.heapify(self._heap)
                    return item >> 64
        return None

    def search(self) -> None:
        """Begin, or begin again, to look at everything with `take_searched`.

        What is not looked at yet is not due for `pop_due`.
        """
        self._searched = sorted(self._searched + self._heap, reverse=True)
        self._heap = []

    @property
    def is_searched(self) -> bool:
        """Whether a search has not come to its end."""
        return bool(self._searched)

    def take_searched(self, most: int) -> list[tuple[int, MessId]]:
        """Take the next pairs of the search out, at most `most`, by their due."""
        count = min(most, len(self._searched))
        return [_pair(self._searched.pop()) for _ in range(count)]

    def take_all(self) -> list[tuple[int, MessId]]:
        """Empty the schedule; the pairs in order of their due."""
        pairs = [_pair(item) for item in sorted(self._heap + self._searched)]
        self._heap, self._searched = [], []
        return pairs

    def all_now(self, now: int) -> None:
        """Everything is due now; the order stays."""
        for due, messid in self.take_all():
            self._heap.append(min(due, now) << 64 | messid)
        heapq.heapify(self._heap)

    def some_now(self, messids: Collection[MessId], now: int) -> None:
        """These are due now, where they are scheduled at all."""
        for due, messid in self.take_all():
            when = min(due, now) if messid in messids else due
            self._heap.append(when << 64 | messid)
        heapq.heapify(self._heap)


def _pair(item: int) -> tuple[int, MessId]:
    return item >> 64, MessId(item & _MASK)
