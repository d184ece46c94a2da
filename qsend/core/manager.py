"""The queue manager's decisions: events in, ordered actions out.

The shell (procs/send) tells what happened (`known`, `todo_loaded`, `job_loaded`,
`report`, `plan_done`, `pump`) and does what `take_actions` returns, in order: log
lines (bytes), loads, deliveries to start, plans to execute.

A message comes from todo (FIRST) and is attempted at once from memory; only what
the attempt leaves over is written down (PREPARING, then QUEUED). A queued message
that waits for its time is one pair in a heap. Source: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from qsend.core import bounce, logline, settle
from qsend.core.backlog import Backlog
from qsend.core.lastreports import LastReports
from qsend.core.lifecycle import Lifecycle
from qsend.core.message import (
    NO_NOTES,
    Delivery,
    Forget,
    Job,
    LoadJob,
    LoadTodo,
    Message,
    Note,
    Phase,
    SaveHolds,
    add_jobs,
)
from qsend.core.model import Cause, Channel, DelId, Letter, MessId
from qsend.core.plan import Plan, Purpose
from qsend.core.retry import next_retry
from qsend.core.settings import Settings

FIRST_MAX = 1000
"""Messages attempted from todo at once: what a crash may deliver again stays
below a second's work, and their descriptors below every usual limit."""
FIRST_RECIPS_MAX = 20
"""A message with more recipients is preprocessed first: its attempt takes long,
and its files cost little for each recipient."""
FIRST_WAIT_S = 5.0
"""How long a message may wait in todo for a slot: a burst of FIRST_MAX drains in
less at 200 a second, and slower mail is cheap to write down."""
LOADS_PER_PUMP = 50
"""Messages read in one turn; reports and slots are served in between."""
PUT_OFF_S = 600
"""How long a message is put off that could only wait in memory."""
SYSFAIL_S = 123
"""Retry after a system error on a message (qmail-send.c SLEEP_SYSFAIL)."""
GAVE_UP = b"I'm not going to try again; this message has been in the queue too long.\n"
_UNJUDGED = (Cause.CRASHED, Cause.MANGLED)
"""Ends of deliveries that nobody judged: not even the last one is a failure."""


class Manager(Lifecycle):
    """All messages that are in memory or due, and what may be done next."""

    def __init__(self, settings: Settings, spread: Callable[[], int]) -> None:
        """`spread` gives numbers from 0 to ILL_SPREAD - 1, at random."""
        super().__init__(spread)
        self.settings = settings
        self.capacity = dict.fromkeys(Channel, 0)
        self.last_reports = LastReports()
        self.exiting = False
        self.configure(settings)
        self.backlog = Backlog()  # whoever looks recipients up says so here
        self.unresolved: set[MessId] = set()  # deferred for want of a lookup
        self._slow: deque[tuple[float, MessId]] = deque()
        self._sought: frozenset[bytes] = frozenset()

    def configure(self, settings: Settings) -> None:
        """Apply new controls from now on."""
        self.settings = settings
        self.attempts.waiting[Channel.REMOTE].resize(settings.destination_limit)

    def set_capacity(self, channel: Channel, slots: int) -> None:
        """How many attempts the channel's spawners take now; 0 while they are lost."""
        self.capacity[channel] = slots

    def seek(self, key: bytes) -> None:
        """Have the scheduled mail of one remote destination tried now.

        All scheduled mail has to be read for it, a little in each turn.
        """
        dues = self.dues[Channel.REMOTE]
        self._sought = self._sought | {key} if dues.is_searched else frozenset({key})
        dues.search()

    # --- what the shell reads

    @property
    def backlog_size(self) -> int:
        """Messages in todo that are not taken up yet."""
        return self.backlog.size

    def next_wake_s(self, now: int, now_mono: float) -> float | None:
        """Seconds until `pump` has something to do by itself; None for never."""
        waits = [self.attempts.next_wake_mono() - now_mono]
        waits += [each[0][0] - now_mono for each in (self._slow, self.partial) if each]
        dues = [
            each.next_due()
            for channel, each in self.dues.items()
            if not self._is_paused(channel)
        ]
        dues.append(self.backlog.next_due())
        waits += [float(due - now) for due in dues if due is not None]
        if self.backlog and self.first + self.backlog.asking < FIRST_MAX:
            waits.append(0.0)
        if self.dues[Channel.REMOTE].is_searched or self._is_short():
            waits.append(0.0)
        return None if self.exiting else max(0.0, min(waits))

    # --- events: messages

    def known(self, messid: MessId) -> None:
        """todo/N exists: enqueue said so, or a scan found it."""
        message = self.messages.get(messid)
        if message is not None:
            message.seen_again |= message.phase is Phase.ENDING
        else:
            self.backlog.add(messid)

    def todo_loaded(
        self,
        message: Message,
        recips: Sequence[tuple[Channel, bytes, bytes]],
        now: int,
        now_mono: float,
        notes: Mapping[int, Note] = NO_NOTES,
    ) -> None:
        """A LoadTodo is answered.

        Args:
            message: phase FIRST, without jobs or files.
            recips: (channel, stored address, destination key) in envelope order.
            notes: on local ones, by position in `recips`.
        """
        self.messages[message.messid] = message
        if not recips:
            message.phase = Phase.ENDING
            line = logline.end_msg(message.messid)
            self.plan(message, settle.finish_first(message, line))
            return
        self.first += 1
        waits = add_jobs(message, recips, notes, now)
        keys = {(channel, key) for channel, _, key in recips}
        if len(recips) > FIRST_RECIPS_MAX or self._only_wait(keys, now_mono):
            self.preprocess(message)
            message.jobs = {}
            return
        for job, key, offset in waits:
            self.attempts.put(message, job, key, offset)
        if self.attempts.must_park(keys):
            self.preprocess(message)
            return
        self._slow.append((now_mono + FIRST_WAIT_S, message.messid))

    def job_loaded(
        self,
        message: Message,
        load: LoadJob,
        recips: Sequence[tuple[int, bytes]],
        now: int,
        now_mono: float,
    ) -> None:
        """A LoadJob is answered.

        Args:
            message: phase QUEUED, without jobs, `files` as found on disk; ignored
                when the message is in memory already.
            load: the request.
            recips: (offset, destination key) of what is not done, in order.
        """
        channel = load.channel
        keys = {(channel, key) for _, key in recips}
        if load.only is not None and load.only.isdisjoint(key for _, key in keys):
            self.dues[channel].push(load.due, message.messid)
            return
        if recips and self._only_wait(keys, now_mono, is_next=load.is_next):
            self._put_off(load, {key for _, key in keys}, now)
            return
        # Not sooner: what is put off must not count as being in memory.
        notes = message.notes
        message = self.messages.setdefault(message.messid, message)
        message.notes = notes
        job = Job(channel, next_retry(message.birth, now, channel))
        message.jobs[channel] = job
        for offset, key in recips:
            self.attempts.put(message, job, key, offset)
        if not recips:
            self.close_job(message, job, now)

    def load_failed(self, load: LoadTodo | LoadJob, now: int) -> None:
        """The files could not be read just now; try again later."""
        due = now + SYSFAIL_S
        if isinstance(load, LoadTodo):
            self.backlog.add_later(load.messid, due)
        else:
            self.dues[load.channel].push(due, load.messid)

    def damaged(self, messid: MessId, reason: str) -> None:
        """A file of the message cannot be parsed, or is missing: set it aside."""
        message = self.revive(messid)
        if message.phase is Phase.QUEUED:
            self.end(message, settle.set_aside(message, reason))

    def plan_done(self, plan: Plan, now: int) -> None:
        """Every step of the plan was done."""
        message = self.messages[plan.messid]
        message.plans -= 1
        if plan.purpose is Purpose.PREPROCESS:
            self.first -= 1
            message.phase = Phase.QUEUED
            self.prepared(message, now)
        elif plan.purpose is Purpose.END:
            del self.messages[plan.messid]
            self.last_reports.forget(plan.messid)
            self.unresolved.discard(plan.messid)
            self.attempts.suspects.pop(plan.messid, None)
            if b"mess:%d" % plan.messid in self.attempts.held:
                self.attempts.held.discard(b"mess:%d" % plan.messid)
                self._actions.append(SaveHolds())
            self._actions.append(Forget(plan.messid))
            if message.seen_again:
                self.known(plan.messid)
            return
        self.drop_idle(message)

    # --- events: deliveries

    def recip_read(self, delid: DelId, address: bytes) -> None:
        """The address of a started delivery, read from disk."""
        self.attempts.deliveries[delid].recip = address

    def report(
        self,
        delid: DelId,
        letter: Letter,
        text: bytes,
        cause: Cause,
        now: int,
        now_mono: float,
    ) -> None:
        """One delivery ended; unknown ones are logged and ignored."""
        delivery = self.attempts.finish(delid, text, cause, now_mono)
        if delivery is None:
            self._actions.append(
                logline.warning("internal error: delivery report out of range")
            )
            return
        message = self.messages.get(delivery.messid)
        job = message.jobs.get(delivery.attempt.channel) if message else None
        if message is None or job is None:
            self._actions.append(logline.delivery(delid, letter, text))
            return  # the message was removed or set aside meanwhile
        alone = delivery.attempt.alone
        if self.attempts.suspect(message.messid, cause, alone=alone):
            text_held = f"message {message.messid} is held: its delivery crashed twice"
            self._actions += [logline.alert(text_held), SaveHolds()]
        if letter is Letter.DEFERRAL and delivery.dying and cause not in _UNJUDGED:
            letter, text = Letter.FAILURE, _with_line(text, GAVE_UP)
        self._actions.append(
            logline.mangled(delid)
            if cause is Cause.MANGLED
            else logline.delivery(delid, letter, text)
        )
        job.running -= 1
        if letter is Letter.DEFERRAL:
            job.left += 1
            if cause is Cause.UNRESOLVED:
                self.unresolved.add(message.messid)
            self.last_reports.note(message.messid, text)
        else:
            failure = None
            if letter is Letter.FAILURE:
                message.bouncing = True
                failure = self._paragraph(message, delivery, text)
            job.settled.append((delivery.offset, failure))
        self.advance(message, job, now, now_mono)

    def _paragraph(self, message: Message, delivery: Delivery, text: bytes) -> bytes:
        note = message.notes.get(delivery.offset)
        if note is not None and delivery.attempt.channel is Channel.LOCAL:
            return bounce.paragraph(note.original, text, {})
        return bounce.paragraph(delivery.recip, text, self.settings.virtualdomains)

    # --- events: time

    def pump(self, now: int, now_mono: float) -> None:
        """Do what time, free slots and the backlog allow."""
        if self.exiting:
            return
        lifetime = self.settings.lifetime
        self._actions += self.attempts.tend(now, now_mono, lifetime)
        self._meet_deadlines(now_mono)
        self._load(now)
        self.fill(now, now_mono)

    def fill(self, now: int, now_mono: float) -> None:
        """Start deliveries while slots are free."""
        settings = self.settings
        for channel, limit in settings.limits.items():
            if self.exiting or channel.value.encode() in self.attempts.held:
                continue
            starts, passed = self.attempts.fill(
                channel,
                min(limit, self.capacity[channel]),
                settings.group_max,
                settings.lifetime,
                now,
                now_mono,
            )
            self._actions += starts
            for message, job in passed:
                # Named once for each destination; the first may have closed it.
                if message.jobs.get(channel) is job:
                    self.advance(message, job, now, now_mono)

    def stop(self) -> None:
        """Take no new work, and write down what is only in memory."""
        self.exiting = True
        for message in list(self.messages.values()):
            if message.phase is Phase.FIRST:
                self.preprocess(message)

    def _only_wait(
        self, keys: set[tuple[Channel, bytes]], now_mono: float, is_next: bool = False
    ) -> bool:
        if is_next:
            return self.attempts.has_enough(keys)
        if self.exiting or all(self._is_paused(channel) for channel, _ in keys):
            return True
        return self.attempts.crowded(keys, now_mono)

    def _is_paused(self, channel: Channel) -> bool:
        limit = min(self.settings.limits[channel], self.capacity[channel])
        return self.attempts.is_paused(channel, limit)

    def _put_off(self, load: LoadJob, keys: set[bytes], now: int) -> None:
        """Let go of a job that could only wait in memory."""
        if self.exiting or self._is_paused(load.channel):
            self.dues[load.channel].push(min(load.due, now), load.messid)
        elif len(keys) == 1:
            [key] = keys
            self.attempts.waiting[load.channel].park(key, load.messid)
        else:
            self.dues[load.channel].push(now + PUT_OFF_S, load.messid)

    def _meet_deadlines(self, now_mono: float) -> None:
        """Write down what has waited in todo for too long."""
        for deadlines in (self._slow, self.partial):
            while deadlines and deadlines[0][0] <= now_mono:
                message = self.messages.get(deadlines.popleft()[1])
                if message is None or message.phase is not Phase.FIRST:
                    continue
                if any(job.waiting or job.settled for job in message.jobs.values()):
                    self.preprocess(message)

    def _load(self, now: int) -> None:
        room = min(LOADS_PER_PUMP, FIRST_MAX - self.first - self.backlog.asking)
        self._actions += map(LoadTodo, self.backlog.take(room, now))
        for channel, dues in self.dues.items():
            for messid in self.attempts.waiting[channel].take_parked(LOADS_PER_PUMP):
                self._load_job(LoadJob(messid, channel, now, is_next=True), now)
            for _ in range(0 if self._is_paused(channel) else LOADS_PER_PUMP):
                pair = dues.pop_due(now)
                if pair is None:
                    break
                self._load_job(LoadJob(pair[1], channel, pair[0]), now)
            self._search(channel)

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

    def _is_short(self) -> bool:
        return any(each.is_short for each in self.attempts.waiting.values())


def _with_line(text: bytes, line: bytes) -> bytes:
    return text + (b"" if not text or text.endswith(b"\n") else b"\n") + line
