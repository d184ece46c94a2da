"""The queue manager's decisions: events in, ordered actions out.

The shell (procs/send) tells what happened (`known`, `todo_loaded`, `job_loaded`,
`report`, `plan_done`, `pump`) and does what `take_actions` returns, in order: log
lines (bytes), loads, deliveries to start, plans to execute.

A message comes from todo (FIRST) and is attempted at once from memory; only what
the attempt leaves over is written down (PREPARING, then QUEUED). A queued message
that waits for its time is one pair in a heap. Source: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from qsend.core import bounce, logline, settle
from qsend.core.lastreports import LastReports
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
from qsend.core.reading import FIRST_WAIT_S, Reading
from qsend.core.retry import next_retry
from qsend.core.settings import Settings

FIRST_RECIPS_MAX = 20
"""A message with more recipients is preprocessed first: its attempt takes long,
and its files cost little for each recipient."""
SYSFAIL_S = 123
"""Retry after a system error on a message (qmail-send.c SLEEP_SYSFAIL)."""
GAVE_UP = b"I'm not going to try again; this message has been in the queue too long.\n"
_UNJUDGED = (Cause.CRASHED, Cause.MANGLED)
"""Ends of deliveries that nobody judged: not even the last one is a failure."""


class Manager(Reading):
    """All messages that are in memory or due, and what may be done next."""

    def __init__(self, settings: Settings, spread: Callable[[], int]) -> None:
        """`spread` gives numbers from 0 to ILL_SPREAD - 1, at random."""
        super().__init__(settings, spread)
        self.last_reports = LastReports()
        self.unresolved: set[MessId] = set()  # deferred for want of a lookup
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Apply new controls from now on."""
        self.settings = settings
        self.attempts.waiting[Channel.REMOTE].resize(settings.destination_limit)

    def set_capacity(self, channel: Channel, slots: int) -> None:
        """How many attempts the channel's spawners take now; 0 while they are lost."""
        self.capacity[channel] = slots

    # --- what the shell reads

    def next_wake_s(self, now: int, now_mono: float) -> float | None:
        """Seconds until `pump` has something to do by itself; None for never."""
        waits = [self.attempts.next_wake_mono() - now_mono]
        waits.append(self.next_deadline_mono(now_mono) - now_mono)
        dues = [
            each.next_due()
            for channel, each in self.dues.items()
            if not self.is_paused(channel)
        ]
        dues.append(self.backlog.next_due())
        waits += [float(due - now) for due in dues if due is not None]
        if self.has_to_read(now_mono):
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
        self.watch(message.messid, keys, now_mono)

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
            self.put_off(load, {key for _, key in keys}, now)
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
        crashes = delivery.attempt.crashes
        if self.attempts.suspect(message.messid, cause, crashes):
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
        self.meet_deadlines(now_mono)
        self.read(now, now_mono)
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
        if self.exiting or all(self.is_paused(channel) for channel, _ in keys):
            return True
        if self.attempts.stalled(keys, now_mono, FIRST_WAIT_S):
            return True
        return self.attempts.crowded(keys, now_mono)


def _with_line(text: bytes, line: bytes) -> bytes:
    return text + (b"" if not text or text.endswith(b"\n") else b"\n") + line
