"""Slots: which waiting recipients are attempted next, and which attempts run.

Knows destinations, limits and deliveries; what a result means for the message is
the manager's business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import assert_never

from qsend.core.destinations import Destination, Destinations, Entry
from qsend.core.message import Attempt, Delivery, Job, Message, StartDelivery
from qsend.core.model import Cause, Channel, DelId, MessId
from qsend.core.retry import is_dying

CROWD_MAX = 20_000
"""Messages in memory from which on one that could only wait is put off."""
CROWD_DESTINATION = 1000
"""Waiting recipients that make a destination one where mail can only wait."""
EXPIRY_S = 60.0
"""How often the waiting mail of ill destinations is checked for its lifetime."""
CRASHES_HELD = 2
"""Crashes that hold a message: the first may have been another message's."""
VERP_TAIL = b"-@[]"


class Attempts:
    """The waiting and the running recipients of both channels."""

    def __init__(
        self, messages: Mapping[MessId, Message], spread: Callable[[], int]
    ) -> None:
        """Watch over `messages`, which the manager fills.

        `spread` gives numbers from 0 to ILL_SPREAD - 1, at random.
        """
        self.waiting = {channel: Destinations(_unlimited) for channel in Channel}
        self.running = dict.fromkeys(Channel, 0)
        self.deliveries: dict[DelId, Delivery] = {}
        self.held: set[bytes] = set()
        # To the number of crashes; 0 if only a user's own child was lost.
        self.suspects: dict[MessId, int] = {}
        self.ahead_s = 0
        """What messages may be older than their lifetime: see ClockSteps."""
        self._messages = messages
        self._spread = spread
        self._delid = 0
        self._next_expiry = 0.0

    def put(self, message: Message, job: Job, key: bytes, offset: int) -> None:
        """One more recipient of the job waits for its destination."""
        job.waiting += 1
        self.waiting[job.channel].put(key, (message.messid, offset))

    def fill(
        self,
        channel: Channel,
        limit: int,
        group_max: int,
        lifetime: int,
        now: int,
        now_mono: float,
    ) -> tuple[list[StartDelivery], list[tuple[Message, Job]]]:
        """Take waiting recipients while slots are free.

        Returns: the attempts to start; and the jobs of held messages that lost
            waiting recipients to their next pass instead.
        """
        starts: list[StartDelivery] = []
        passed: list[tuple[Message, Job]] = []
        destinations = self.waiting[channel]
        while (free := limit - self.running[channel]) > 0:
            destination = destinations.next_ready(now_mono, free, limit)
            if destination is None:
                break
            message = self._messages[destination.waiting[0][0]]
            job = message.jobs[channel]
            single = channel is Channel.LOCAL or message.sender.endswith(VERP_TAIL)
            entries = destinations.take(destination, 1 if single else group_max)
            if destination.running == 1:
                destination.moved_mono = now_mono
            offsets = [offset for _, offset in entries]
            job.waiting -= len(entries)
            if b"mess:%d" % message.messid in self.held:
                job.left += len(entries)
                destinations.release(destination)
                passed.append((message, job))
                continue
            dying = is_dying(message.birth, now - self.ahead_s, lifetime)
            starts.append(self._begin(message, job, destination, offsets, dying))
        return starts, passed

    def finish(
        self, delid: DelId, text: bytes, cause: Cause, now_mono: float
    ) -> Delivery | None:
        """One delivery ended: free its slot, note its destination's health.

        Returns: the delivery, or None when no such one runs.
        """
        delivery = self.deliveries.pop(delid, None)
        if delivery is None:
            return None
        attempt = delivery.attempt
        destinations = self.waiting[attempt.channel]
        if cause is Cause.NORMAL and attempt.tried:
            destinations.prove(attempt.destination, now_mono)
        if attempt.channel is Channel.REMOTE and attempt.tried:
            if cause is Cause.UNREACHABLE:
                destinations.unreachable(
                    attempt.destination, text, now_mono, self._spread()
                )
            elif cause is Cause.NORMAL:
                destinations.reached(attempt.destination)
        attempt.outstanding -= 1
        attempt.destination.moved_mono = now_mono
        if attempt.outstanding == 0:
            self.running[attempt.channel] -= 1
            destinations.release(attempt.destination)
        return delivery

    def next_wake_mono(self) -> float:
        """When `tend` has something to do."""
        return self._next_expiry

    def tend(self, now: int, now_mono: float, lifetime: int) -> list[StartDelivery]:
        """Every EXPIRY_S: wake destinations, forget idle ones, expire the waiting.

        Returns: attempts with a verdict, for recipients that wait behind an ill
            destination and whose lifetime is over.
        """
        if now_mono < self._next_expiry:
            return []
        self._next_expiry = now_mono + EXPIRY_S
        starts = self._expire(now, now_mono, lifetime)
        for destinations in self.waiting.values():
            destinations.wake(now_mono)
            destinations.note_short()
            destinations.forget_idle(now_mono)
        return starts

    def must_park(self, keys: set[tuple[Channel, bytes]]) -> bool:
        """Whether one of these destinations is held, or was not reached of late.

        Mail for it is written down at once rather than wait in todo.
        """
        found = (self.waiting[channel].get(key) for channel, key in keys)
        return any(each is not None and (each.held or each.failures) for each in found)

    def stalled(
        self, keys: Collection[tuple[Channel, bytes]], now_mono: float, since_s: float
    ) -> bool:
        """Whether mail only waits at each of these, where nothing has ended so long."""
        found = (self.waiting[channel].get(key) for channel, key in keys)
        return all(
            each is not None and each.is_stalled(now_mono, since_s) for each in found
        )

    def stuck(self, keys: Collection[tuple[Channel, bytes]], now_mono: float) -> bool:
        """Whether mail for these only waits while there is other mail to deliver.

        At each nothing has ended for STALL_S, or nothing yet while others take mail.
        """
        return all(
            self.waiting[channel].is_stuck(key, now_mono) for channel, key in keys
        )

    def is_paused(self, channel: Channel, limit: int) -> bool:
        """Whether memory is short and the channel can start nothing more now.

        What is due stays where it costs least until one of `limit` slots is free.
        """
        if len(self._messages) < CROWD_MAX:
            return False
        return channel.value.encode() in self.held or self.running[channel] >= limit

    def crowded(self, keys: set[tuple[Channel, bytes]], now_mono: float) -> bool:
        """Whether others wait before it at each of these destinations.

        They do if they are parked, or if memory is short and it cannot go on soon.
        """
        return all(self._is_crowded(*pair, now_mono) for pair in keys)

    def has_enough(self, keys: set[tuple[Channel, bytes]]) -> bool:
        """Whether each of these destinations has enough of its mail in memory.

        So it is when mail was parked behind one that it does not go to any more.
        """
        found = (self.waiting[channel].get(key) for channel, key in keys)
        return all(
            each is not None and len(each.waiting) > CROWD_DESTINATION for each in found
        )

    def _is_crowded(self, channel: Channel, key: bytes, now_mono: float) -> bool:
        if key in self.waiting[channel].parked:
            return True
        destination = self.waiting[channel].get(key)
        if destination is None or len(self._messages) < CROWD_MAX:
            return False
        return (
            destination.held
            or destination.is_ill(now_mono)
            or len(destination.waiting) > CROWD_DESTINATION
        )

    def purge(self, message: Message) -> None:
        """Drop the waiting recipients of a message that ends early."""
        for job in message.jobs.values():
            if job.waiting:
                for destination in self.waiting[job.channel]:
                    entries = destination.waiting
                    keep = [each for each in entries if each[0] != message.messid]
                    if len(keep) != len(entries):
                        self.waiting[job.channel].sift(destination, keep)

    def suspect(self, messid: MessId, cause: Cause, before: int) -> bool:
        """Note whether a delivery crashed; True when it did so for a second time.

        A suspect is attempted alone; the second crash holds the message. Deliveries
        with as many crashes `before` them may have been lost with one process, and
        are one crash. The loss of a user's own child does not count: he can kill it as
        often as he likes.
        """
        match cause:
            case Cause.NORMAL | Cause.UNREACHABLE | Cause.MANGLED | Cause.UNRESOLVED:
                self.suspects.pop(messid, None)
                return False
            case Cause.CHILD_LOST:
                self.suspects.setdefault(messid, 0)
                return False
            case Cause.CRASHED:
                pass
            case _:
                assert_never(cause)
        if before + 1 < CRASHES_HELD:
            self.suspects[messid] = before + 1
            return False
        self.suspects.pop(messid, None)
        name = b"mess:%d" % messid
        is_news = name not in self.held
        self.held.add(name)
        return is_news

    def _begin(
        self,
        message: Message,
        job: Job,
        destination: Destination,
        offsets: list[int],
        dying: bool,
        verdict: bytes | None = None,
    ) -> StartDelivery:
        crashes = self.suspects.get(message.messid)
        attempt = Attempt(
            job.channel, destination, len(offsets), verdict is None, crashes or 0
        )
        self.running[job.channel] += 1
        job.running += len(offsets)
        recips = []
        for offset in offsets:
            self._delid += 1
            delid = DelId(self._delid)
            address = job.addresses.get(offset, b"")
            self.deliveries[delid] = Delivery(
                delid, message.messid, offset, address, dying, attempt
            )
            recips.append((delid, offset, address))
        return StartDelivery(
            message.messid,
            job.channel,
            destination.key,
            message.sender,
            tuple(recips),
            crashes is not None,
            verdict,
        )

    def _expire(self, now: int, now_mono: float, lifetime: int) -> list[StartDelivery]:
        starts: list[StartDelivery] = []
        destinations = self.waiting[Channel.REMOTE]
        for destination in list(destinations):
            if destination.held or not destination.is_ill(now_mono):
                continue
            keep: list[Entry] = []
            expired: list[Entry] = []
            for entry in destination.waiting:
                birth = self._messages[entry[0]].birth
                is_over = is_dying(birth, now - self.ahead_s, lifetime)
                (expired if is_over else keep).append(entry)
            if not expired:
                continue
            destinations.sift(destination, keep)
            for messid, offset in expired:
                message = self._messages[messid]
                job = message.jobs[Channel.REMOTE]
                job.waiting -= 1
                destinations.begin(destination)
                starts.append(
                    self._begin(
                        message, job, destination, [offset], True, destination.error
                    )
                )
        return starts


def _unlimited(_key: bytes) -> int:
    return 1 << 30
