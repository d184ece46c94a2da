"""Numbers of messages that wait behind a destination's others, outside of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from qsend.core.model import MessId


class Parking:
    """First come, first back, for each destination.

    A destination is short when fewer than `low` of its recipients are left in memory;
    it then gets back what makes `high` of them.
    """

    def __init__(
        self, bounds: Callable[[], tuple[int, int]], length: Callable[[bytes], int]
    ) -> None:
        """`bounds` gives low and high, `length` what a destination has in memory."""
        self._bounds = bounds
        self._length = length
        self._numbers: dict[bytes, deque[MessId]] = {}
        self._short: set[bytes] = set()

    def __iter__(self) -> Iterator[MessId]:
        """Every message, each destination's in order."""
        for messids in self._numbers.values():
            yield from messids

    def __len__(self) -> int:
        return sum(map(len, self._numbers.values()))

    def __contains__(self, key: bytes) -> bool:
        return key in self._numbers

    def destinations(self) -> list[bytes]:
        """The destinations."""
        return list(self._numbers)

    @property
    def is_short(self) -> bool:
        """Whether `take_short` has something to give."""
        return bool(self._short)

    def put(self, key: bytes, messid: MessId) -> None:
        """Keep a number behind the destination's others."""
        self._numbers.setdefault(key, deque()).append(messid)

    def note(self, key: bytes, length: int) -> None:
        """The destination has so many recipients left in memory."""
        if key in self._numbers and length < self._bounds()[0]:
            self._short.add(key)

    def take_short(self, most: int) -> list[MessId]:
        """At most `most` whose turn to be in memory has come."""
        taken: list[MessId] = []
        for key in list(self._short):
            room = max(0, self._bounds()[1] - self._length(key))
            count = min(most - len(taken), room)
            taken += self._take(key, count)
            # Those just taken count when they have come: they may go elsewhere.
            if key not in self._numbers or not room:
                self._short.discard(key)
        return taken

    def take_any(self, most: int) -> list[MessId]:
        """At most `most`, some of each destination in turn, short of mail or not."""
        taken: list[MessId] = []
        while self._numbers and len(taken) < most:
            key = next(iter(self._numbers))
            taken += self._take(key, min(self._bounds()[0], most - len(taken)))
            if key in self._numbers:
                self._numbers[key] = self._numbers.pop(key)
        return taken

    def remove(self, messid: MessId) -> bool:
        """Forget a message; False when it is not there."""
        for key, messids in self._numbers.items():
            if messid in messids:
                messids.remove(messid)
                self._drop_empty(key)
                return True
        return False

    def _take(self, key: bytes, most: int) -> list[MessId]:
        messids = self._numbers.get(key, deque())
        taken = [messids.popleft() for _ in range(min(most, len(messids)))]
        self._drop_empty(key)
        return taken

    def _drop_empty(self, key: bytes) -> None:
        if not self._numbers.get(key):
            self._numbers.pop(key, None)
            self._short.discard(key)
