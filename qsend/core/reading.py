"""Which messages are read next: from todo, and from the schedule when they are due.

At most FIRST_MAX messages of todo are in memory before they are written down. Those
that could only wait for a destination where nothing moves must not take that room
from others: they are passed over, or written down early.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from qsend.core.backlog import Backlog
from qsend.core.destinations import STALL_S
from qsend.core.lifecycle import Lifecycle
from qsend.core.message import LoadJob, LoadTodo, Phase
from qsend.core.model import Channel, MessId
from qsend.core.settings import Settings

FIRST_MAX = 1000
"""Messages attempted from todo at once: what a crash may deliver again stays
below a second's work, and their descriptors below every usual limit."""
FIRST_WAIT_S = 5.0
"""How long a message may wait in todo for a slot: a burst of FIRST_MAX drains in
less at 200 a second, and slower mail is cheap to write down."""
LOADS_PER_PUMP = 50
"""Messages read in one turn; reports and slots are served in between."""
MADE_ROOM = 100
"""Messages written down early at a time, STALL_S apart: room enough for a thousand
deliveries a second of other mail."""
PUT_OFF_S = 600
"""How long a message is put off that could only wait in memory."""


class Reading(Lifecycle):
    """What is known to wait in todo and in the schedule, and the room in memory."""

    def __init__(self, settings: Settings, spread: Callable[[], int]) -> None:
        """`spread` gives numbers from 0 to ILL_SPREAD - 1, at random."""
        super().__init__(spread)
        self.settings = settings
        self.capacity = dict.fromkeys(Channel, 0)
        self.exiting = False
        self.backlog = Backlog()  # whoever looks recipients up says so here
        self._slow: deque[tuple[float, MessId, set[tuple[Channel, bytes]]]] = deque()
        self._room_mono = 0.0
        self._passed_mono = 0.0  # before this no second look while others are moving
        self._sought: frozenset[bytes] = frozenset()

    @property
    def backlog_size(self) -> int:
        """Messages in todo that are not taken up yet."""
        return self.backlog.size

    def seek(self, key: bytes) -> None:
        """Have the scheduled mail of one remote destination tried now.

        All scheduled mail has to be read for it, a little in each turn.
        """
        dues = self.dues[Channel.REMOTE]
        self._sought = self._sought | {key} if dues.is_searched else frozenset({key})
        dues.search()

    def is_paused(self, channel: Channel) -> bool:
        """Whether what is due on this channel stays where it is for now."""
        limit = min(self.settings.limits[channel], self.capacity[channel])
        return self.attempts.is_paused(channel, limit)

    def put_off(self, load: LoadJob, keys: set[bytes], now: int) -> None:
        """Let go of a job that could only wait in memory."""
        if self.exiting or self.is_paused(load.channel):
            self.dues[load.channel].push(min(load.due, now), load.messid)
        elif len(keys) == 1:
            [key] = keys
            self.attempts.waiting[load.channel].parked.put(key, load.messid)
        else:
            self.dues[load.channel].push(now + PUT_OFF_S, load.messid)

    def read(self, now: int, now_mono: float) -> None:
        """Ask for what is to be read in this turn."""
        self._actions += map(LoadTodo, self._next_todo(now, now_mono))
        for channel, dues in self.dues.items():
            parked = self.attempts.waiting[channel].parked
            for messid in parked.take_short(LOADS_PER_PUMP):
                self._load_job(LoadJob(messid, channel, now, is_next=True), now)
            for _ in range(0 if self.is_paused(channel) else LOADS_PER_PUMP):
                pair = dues.pop_due(now)
                if pair is None:
                    break
                self._load_job(LoadJob(pair[1], channel, pair[0]), now)
            self._search(channel)

    def has_to_read(self, now_mono: float) -> bool:
        """Whether `read` has something to do before anything else happens."""
        if self.backlog and self._taken < FIRST_MAX:
            return True
        if self.dues[Channel.REMOTE].is_searched or self._passed_room(now_mono):
            return True
        waiting = self.attempts.waiting.values()
        is_short = any(each.passed.is_short for each in waiting)
        return any(each.parked.is_short for each in waiting) or (
            is_short and self._taken < FIRST_MAX
        )

    def pass_over(
        self, messid: MessId, keys: set[tuple[Channel, bytes]], now_mono: float
    ) -> bool:
        """Whether a message in todo is left there, since it could only wait.

        It does so where nothing moves, or where a host has yet to show that it takes
        mail, while others wait to be read; it is read again when its turn has come, or
        when there are no others.
        """
        if not self.backlog or not keys:
            return False
        if not self.attempts.stuck(keys, now_mono):
            return False
        channel, key = min(keys, key=lambda pair: pair[1])
        self.attempts.waiting[channel].passed.put(key, messid)
        self.backlog.pass_over(messid)
        self._passed_mono = now_mono + STALL_S
        return True

    def watch(
        self, messid: MessId, keys: set[tuple[Channel, bytes]], now_mono: float
    ) -> None:
        """A message is attempted from todo: it must not wait there for long."""
        self._slow.append((now_mono + FIRST_WAIT_S, messid, keys))

    def meet_deadlines(self, now_mono: float) -> None:
        """Write down what has waited in todo for too long, or keeps others out."""
        while self._slow and self._slow[0][0] <= now_mono:
            self._write_down(self._slow.popleft()[1])
        while self.partial and self.partial[0][0] <= now_mono:
            self._write_down(self.partial.popleft()[1])
        if self.backlog and self._taken >= FIRST_MAX and now_mono >= self._room_mono:
            self._room_mono = now_mono + STALL_S
            self._make_room(now_mono)

    def next_deadline_mono(self, now_mono: float) -> float:
        """When `meet_deadlines`, or later than now `read`, has something to do."""
        times = [each[0][0] for each in (self._slow, self.partial) if each]
        if self.backlog and self._taken >= FIRST_MAX:
            times.append(self._room_mono)
        if self._is_pacing(now_mono):
            times.append(self._passed_mono)
        return min(times, default=math.inf)

    @property
    def _taken(self) -> int:
        return self.first + self.backlog.asking

    def _next_todo(self, now: int, now_mono: float) -> list[MessId]:
        room = min(LOADS_PER_PUMP, FIRST_MAX - self._taken)
        back: list[MessId] = []
        for destinations in self.attempts.waiting.values():
            back += destinations.passed.take_short(room - len(back))
        new = self.backlog.take(room - len(back), now)
        if not new and not back:
            most = self._passed_room(now_mono)
            for destinations in self.attempts.waiting.values():
                back += destinations.passed.take_any(most - len(back))
            if back:
                self._passed_mono = now_mono + STALL_S
        self.backlog.call_back(back)
        return back + new

    def _passed_room(self, now_mono: float) -> int:
        """How many that were passed over may be read because nothing else is there.

        While others are delivered, STALL_S apart.
        """
        if self.backlog or not self.backlog.passed or self._is_pacing(now_mono):
            return 0
        return max(0, min(LOADS_PER_PUMP, FIRST_MAX // 2 - self._taken))

    def _is_pacing(self, now_mono: float) -> bool:
        if now_mono >= self._passed_mono or not self.backlog.passed:
            return False
        waiting = self.attempts.waiting.values()
        return any(each.is_moving(now_mono) for each in waiting)

    def _make_room(self, now_mono: float) -> None:
        """Write the oldest down of those that only wait where nothing moves.

        Not while others have a quarter of the room: more would gain them nothing.
        """
        waiting = self.attempts.waiting.values()
        if sum(each.in_motion(now_mono) for each in waiting) >= FIRST_MAX // 4:
            return
        for _ in range(min(MADE_ROOM, len(self._slow))):
            _due, messid, keys = self._slow[0]
            message = self.messages.get(messid)
            jobs = message.jobs.values() if message is not None else ()
            if any(job.waiting for job in jobs):
                if not self.attempts.stalled(keys, now_mono, STALL_S):
                    return
                self._write_down(messid)
            self._slow.popleft()

    def _write_down(self, messid: MessId) -> None:
        message = self.messages.get(messid)
        if message is None or message.phase is not Phase.FIRST:
            return
        if any(job.waiting or job.settled for job in message.jobs.values()):
            self.preprocess(message)

    def _search(self, channel: Channel) -> None:
        dues = self.dues[channel]
        for due, messid in dues.take_searched(LOADS_PER_PUMP):
            if messid in self.messages:
                dues.push(due, messid)
            else:
                self._actions.append(LoadJob(messid, channel, due, self._sought))

    def _load_job(self, load: LoadJob, now: int) -> None:
        message = self.messages.get(load.messid)
        if message is not None and (message.plans or load.channel in message.jobs):
            if message.phase is not Phase.ENDING:
                self.dues[load.channel].push(now + 1, load.messid)
        elif b"mess:%d" % load.messid in self.attempts.held:
            self.dues[load.channel].push(now + PUT_OFF_S, load.messid)
        else:
            self._actions.append(load)
