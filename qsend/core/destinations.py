"""Who waits for what: one FIFO per destination, served in turn.

A destination has its own limit and its own health. Free slots go round the
destinations that may use them, and the last free ones only to destinations that
have none, so that neither a huge list nor a host that hangs can starve the rest.
An entry that waits costs one small tuple and no attention.
Source: docs/ARCHITECTURE.md "Scheduling"; health: qmail tcpto.c, without its table.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from qsend.core.model import MessId
from qsend.core.parking import Parking

RECOUNT_S = 120
"""A failure counts once in this time (qmail tcpto.c)."""
ILL_FROM = 2
"""So many counted failures make a destination wait."""
ILL_UNIT_S = 64
ILL_UNITS = 60
ILL_SPREAD = 32
"""It waits (ILL_UNITS + 0..ILL_SPREAD-1) * ILL_UNIT_S: 64 to 97 minutes."""

REFILL_FROM = 500
"""With so few recipients left in memory, messages parked behind them follow."""
REFILL_TO = 1000
"""So many there are enough for some seconds of work."""
PASSED_FROM, PASSED_TO = 10, 20
"""The same for messages in todo that were passed over."""
STALL_S = 0.1
"""A destination stalls when for so long none of those that run has ended."""

SPARE_PART = 4
"""One slot in so many is spare: only for destinations that run nothing yet."""
SPARE_MAX = 100
"""Most spare slots; so many destinations at once get their first attempt."""
UNPROVED_MAX = 2
"""Slots of a destination until the first delivery has ended, while there are others:
a good one is held up for as long as one takes, a host that hangs holds no more."""

Entry = tuple[MessId, int]
"""(messid, offset of the recipient's record in the channel file)."""


@dataclass(slots=True)
class Destination:
    """One destination's queue, limit and health.

    `moved_mono` is when the first of those that run started, or one ended. `is_proved`:
    one has ended as it should since it came, or since it was last unreachable.
    `failures` counts unreachable attempts as tcpto does; `failed_mono` is when
    the count last grew. `error` is what the last one said.
    """

    key: bytes
    limit: int
    waiting: deque[Entry]
    running: int = 0
    moved_mono: float = 0.0
    is_proved: bool = False
    failures: int = 0
    failed_mono: float = 0.0
    ill_until_mono: float = 0.0
    error: bytes = b""
    held: bool = False
    in_ring: bool = False

    def is_ill(self, now_mono: float) -> bool:
        """Whether connecting again has to wait."""
        return now_mono < self.ill_until_mono

    def is_stalled(self, now_mono: float, since_s: float) -> bool:
        """Whether nothing has ended for so long, and more than a few wait."""
        if not self.running or len(self.waiting) < PASSED_FROM:
            return False
        return now_mono - self.moved_mono >= since_s

    def may_start(self, now_mono: float) -> bool:
        """Whether one more delivery may begin; after a failure only one probes."""
        if not self.waiting or self.held or self.is_ill(now_mono):
            return False
        return self.running < (1 if self.failures else self.limit)


def spare_slots(slots: int) -> int:
    """How many of a channel's slots no destination gets as its second."""
    return min(SPARE_MAX, max(slots // SPARE_PART, int(slots > 1)))


class Destinations:
    """The destinations of one channel, and the turn order among them."""

    def __init__(self, limit_of: Callable[[bytes], int]) -> None:
        """`limit_of` says how many deliveries one destination may run at once."""
        self._limit_of = limit_of
        self._by_key: dict[bytes, Destination] = {}
        self._ring: deque[Destination] = deque()
        self._second: OrderedDict[bytes, Destination] = OrderedDict()
        self._tried: dict[bytes, Destination] = {}
        self._held: set[bytes] = set()
        self.parked = Parking(lambda: (REFILL_FROM, REFILL_TO), self._length)
        self.passed = Parking(lambda: (PASSED_FROM, PASSED_TO), self._length)
        self.waiting = 0
        self._unproved = 0  # deliveries that run for destinations not proved
        self._proved_mono = -math.inf

    def __iter__(self) -> Iterator[Destination]:
        return iter(self._by_key.values())

    def get(self, key: bytes) -> Destination | None:
        """The destination named `key`, if anything is known of it."""
        return self._by_key.get(key)

    def put(self, key: bytes, entry: Entry) -> Destination:
        """Add one recipient at the end of its destination's FIFO."""
        destination = self._by_key.get(key)
        if destination is None:
            destination = Destination(key, self._limit_of(key), deque())
            destination.held = key in self._held
            self._by_key[key] = destination
        destination.waiting.append(entry)
        self.waiting += 1
        self._to_ring(destination)
        return destination

    def next_ready(self, now_mono: float, free: int, slots: int) -> Destination | None:
        """The destination whose turn it is, or None when none may start.

        The caller takes entries from it with `take` and calls again.

        Args:
            free: so many of the channel's `slots`, at least one.
        """
        spare = spare_slots(slots)
        # What runs for destinations that may hang is spare slots in use. Not of all:
        # there may be more of them to come.
        only_spare = free <= max(spare - self._unproved, -(-spare // SPARE_PART))
        if len(self._tried) == 1:
            [alone] = self._tried.values()
            if not self._is_tried(alone, free, slots):
                self._ring.append(self._tried.pop(alone.key))
        while (destination := self._pop(only_spare=only_spare)) is not None:
            if not destination.may_start(now_mono):
                # It comes back by put, release, wake or hold.
                destination.in_ring = False
            elif self._is_tried(destination, free, slots):
                # It comes back when one of those that run has ended, or when alone.
                self._tried[destination.key] = destination
            elif only_spare and destination.running:
                # It comes back when it runs nothing, or more slots are free.
                self._second[destination.key] = destination
            else:
                self._ring.append(destination)
                return destination
        return None

    def _pop(self, *, only_spare: bool) -> Destination | None:
        if self._ring:
            return self._ring.popleft()
        if self._second and not only_spare:
            return self._second.popitem(last=False)[1]
        return None

    def _is_tried(self, destination: Destination, free: int, slots: int) -> bool:
        """Whether it has all that it gets before it is proved.

        Alone it gets all slots but the spare ones.
        """
        if destination.is_proved or destination.running < UNPROVED_MAX:
            return False
        is_alone = slots - free == destination.running
        is_alone = is_alone and self.waiting == len(destination.waiting)
        return not is_alone or free <= spare_slots(slots)

    def is_moving(self, now_mono: float) -> bool:
        """Whether a delivery of some destination has ended well within STALL_S."""
        return now_mono - self._proved_mono < STALL_S

    def is_stuck(self, key: bytes, now_mono: float) -> bool:
        """Whether more mail for this one only waits, while there is other mail.

        Enough waits, and it stalls, or has yet to be proved. The latter only while
        others take mail: before that nobody knows who is good, and mail that was passed
        over has to be read twice.
        """
        destination = self._by_key.get(key)
        if destination is None or len(destination.waiting) < PASSED_FROM:
            return False
        if destination.is_stalled(now_mono, STALL_S):
            return True
        is_tried = destination.running > 0 and not destination.is_proved
        return is_tried and self.is_moving(now_mono)

    def in_motion(self, now_mono: float) -> int:
        """How many recipients wait where mail is taken, but for want of slots."""
        return sum(
            len(each.waiting)
            for each in self
            if each.is_proved
            and not (each.held or each.failures or each.is_stalled(now_mono, STALL_S))
        )

    def take(self, destination: Destination, most: int) -> list[Entry]:
        """The first entry, and those of the same message that follow it.

        At most `most`; the destination counts one more delivery as running.
        """
        waiting = destination.waiting
        entries = [waiting.popleft()]
        messid = entries[0][0]
        while waiting and len(entries) < most and waiting[0][0] == messid:
            entries.append(waiting.popleft())
        self.begin(destination)
        self.waiting -= len(entries)
        self._note_short(destination)
        return entries

    def begin(self, destination: Destination) -> None:
        """One more delivery of this destination runs."""
        destination.running += 1
        self._unproved += not destination.is_proved

    def release(self, destination: Destination) -> None:
        """One delivery of this destination ended."""
        destination.running -= 1
        self._unproved -= not destination.is_proved
        if destination.key in self._tried:
            self._ring.append(self._tried.pop(destination.key))
        elif not destination.running and destination.key in self._second:
            self._ring.append(self._second.pop(destination.key))
        self._settle(destination)

    def prove(self, destination: Destination, now_mono: float) -> None:
        """A delivery of this destination was judged by its host, or its user."""
        self._proved_mono = now_mono
        if not destination.is_proved:
            destination.is_proved = True
            self._unproved -= destination.running

    def reached(self, destination: Destination) -> None:
        """A host of the destination answered: it is healthy."""
        if destination.failures:
            destination.failures = 0
            destination.ill_until_mono = 0.0
            self._to_ring(destination)

    def unreachable(
        self, destination: Destination, error: bytes, now_mono: float, spread: int
    ) -> None:
        """No host of the destination could be connected.

        Args:
            error: what the attempt reported.
            spread: 0 to ILL_SPREAD - 1, so that destinations do not wake together.
        """
        destination.error = error
        if destination.is_proved:
            destination.is_proved = False
            self._unproved += destination.running
        if destination.failures and now_mono < destination.failed_mono + RECOUNT_S:
            return
        destination.failures = min(destination.failures + 1, 10)
        destination.failed_mono = now_mono
        if destination.failures >= ILL_FROM:
            wait_s = (ILL_UNITS + spread) * ILL_UNIT_S
            destination.ill_until_mono = now_mono + wait_s

    def wake(self, now_mono: float) -> None:
        """Give destinations whose wait is over their turn again."""
        for destination in self._by_key.values():
            if destination.ill_until_mono and not destination.is_ill(now_mono):
                destination.ill_until_mono = 0.0
                self._to_ring(destination)

    def cure(self, key: bytes | None = None) -> None:
        """Forget the ill health of one destination, or of all."""
        chosen = self._by_key.values() if key is None else self._named(key)
        for destination in chosen:
            destination.failures = 0
            destination.ill_until_mono = 0.0
            self._to_ring(destination)

    def hold(self, key: bytes, *, held: bool) -> None:
        """Stop or resume starting deliveries to one destination."""
        (self._held.add if held else self._held.discard)(key)
        for destination in self._named(key):
            destination.held = held
            self._to_ring(destination)

    def resize(self, limit_of: Callable[[bytes], int]) -> None:
        """Apply new limits to every destination."""
        self._limit_of = limit_of
        for destination in self._by_key.values():
            destination.limit = limit_of(destination.key)
            self._to_ring(destination)

    def sift(self, destination: Destination, keep: Iterable[Entry]) -> None:
        """Replace the waiting entries by those to keep, in order."""
        self.waiting -= len(destination.waiting)
        destination.waiting = deque(keep)
        self.waiting += len(destination.waiting)
        self._note_short(destination)

    def note_short(self) -> None:
        """Find destinations that lost what they had in memory without using it."""
        for numbers in (self.parked, self.passed):
            for key in numbers.destinations():
                numbers.note(key, self._length(key))

    def forget_idle(self, now_mono: float) -> None:
        """Drop destinations without entries, deliveries or recent failures."""
        for key, destination in list(self._by_key.items()):
            remembered = destination.failures and (
                now_mono < destination.failed_mono + 2 * ILL_UNITS * ILL_UNIT_S
            )
            if not destination.waiting and not destination.running and not remembered:
                if key in self._second:
                    del self._second[key]
                elif destination.in_ring:
                    self._ring.remove(destination)
                del self._by_key[key]

    def _note_short(self, destination: Destination) -> None:
        for numbers in (self.parked, self.passed):
            numbers.note(destination.key, len(destination.waiting))

    def _length(self, key: bytes) -> int:
        destination = self._by_key.get(key)
        return 0 if destination is None else len(destination.waiting)

    def _named(self, key: bytes) -> list[Destination]:
        return [self._by_key[key]] if key in self._by_key else []

    def _to_ring(self, destination: Destination) -> None:
        if not destination.in_ring and destination.waiting:
            destination.in_ring = True
            self._ring.append(destination)

    def _settle(self, destination: Destination) -> None:
        """Back to the ring, or out of memory when nothing more is known of it."""
        if destination.waiting:
            self._to_ring(destination)
        elif not destination.running and not destination.failures:
            if destination.in_ring:
                return  # next_ready drops it from the ring; forget_idle from the map
            self._by_key.pop(destination.key, None)
