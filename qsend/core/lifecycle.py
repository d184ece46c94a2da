"""A message in memory from its first attempt to its end: phases, passes, plans.

What the results of deliveries mean for a message is decided here; which message is
read or attempted next is core/manager.py's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from qsend.core import logline, settle
from qsend.core.attempts import Attempts
from qsend.core.dues import Dues
from qsend.core.message import (
    Forget,
    ForgetSilence,
    Job,
    LoadJob,
    LoadTodo,
    Message,
    Phase,
    SaveHolds,
    StartDelivery,
)
from qsend.core.model import Channel, MessId
from qsend.core.plan import Plan
from qsend.core.retry import next_retry

FIRST_PARTIAL_S = 1.0
"""How long a success may go unmarked while other recipients are outstanding."""

Action = (
    bytes
    | LoadTodo
    | LoadJob
    | StartDelivery
    | Plan
    | Forget
    | ForgetSilence
    | SaveHolds
)


class Lifecycle:
    """The messages in memory, and the heaps of those that are only due.

    `first` counts messages that are in todo and not yet preprocessed; `partial`
    holds (monotonic time, messid) of those with a success to be marked by then.
    """

    def __init__(self, spread: Callable[[], int]) -> None:
        """`spread` gives numbers from 0 to ILL_SPREAD - 1, at random."""
        self.messages: dict[MessId, Message] = {}
        self.attempts = Attempts(self.messages, spread)
        self.dues = {channel: Dues() for channel in Channel}
        self.first = 0
        self.partial: deque[tuple[float, MessId]] = deque()
        self._dirty: dict[tuple[MessId, Channel], None] = {}
        self._actions: list[Action] = []

    def take_actions(self) -> list[Action]:
        """What to do now, in order; ask again until nothing comes."""
        for messid, channel in self._dirty:
            message = self.messages.get(messid)
            job = message.jobs.get(channel) if message is not None else None
            if message is not None and job is not None and job.settled:
                self.plan(message, settle.progress(message, job))
                job.settled = []
        self._dirty.clear()
        actions, self._actions = self._actions, []
        return actions

    def act(self, action: Action) -> None:
        """Add one action."""
        self._actions.append(action)

    def plan(self, message: Message, plan: Plan) -> None:
        """Have a plan executed; its message stays in memory until it is done."""
        message.plans += 1
        self._actions.append(plan)

    def end(self, message: Message, plan: Plan) -> None:
        """End a queued message by `plan`, whatever its jobs were about to do."""
        self.attempts.purge(message)
        message.jobs.clear()
        message.phase = Phase.ENDING
        self.plan(message, plan)

    def revive(self, messid: MessId) -> Message:
        """A queued message that was only in the heaps, in memory without jobs."""
        return self.messages.setdefault(
            messid, Message(messid, b"", 0, Phase.QUEUED, {}, set())
        )

    def preprocess(self, message: Message) -> None:
        """Write down a message that was only in todo."""
        message.phase = Phase.PREPARING
        self.plan(message, settle.preprocess(message))

    def prepared(self, message: Message, now: int) -> None:
        """It is written down: go on with what happened meanwhile."""
        if not message.jobs:
            for channel in message.files:
                self.dues[channel].push(now, message.messid)
        for channel, job in list(message.jobs.items()):
            job.addresses = {}
            if channel not in message.files:
                del message.jobs[channel]
            else:
                self._go_on(message, job, now)

    def _go_on(self, message: Message, job: Job, now: int) -> None:
        if job.outstanding == 0:
            self.close_job(message, job, now)
        elif job.settled:
            self._dirty[message.messid, job.channel] = None

    def close_job(self, message: Message, job: Job, now: int) -> None:
        """The pass is over: note its results, and end or reschedule the message."""
        del message.jobs[job.channel]
        if job.left:
            if job.again:
                job.retry_due = now
            elif job.retry_due <= now:
                job.retry_due = next_retry(message.birth, now, job.channel)
            self.plan(message, settle.defer(message, job))
            self.dues[job.channel].push(job.retry_due, message.messid)
            return
        message.files.discard(job.channel)
        if message.files:
            self.plan(message, settle.finish_channel(message, job))
            return
        message.phase = Phase.ENDING
        line = logline.end_msg(message.messid)
        self.plan(message, settle.finish(message, job, line))

    def advance(self, message: Message, job: Job, now: int, now_mono: float) -> None:
        """A result came in: see what it means for the message."""
        if message.phase is Phase.QUEUED:
            self._go_on(message, job, now)
        elif message.phase is Phase.FIRST:
            jobs = message.jobs.values()
            if job.left or job.settled[-1][1] is not None:
                self.preprocess(message)
            elif not any(each.outstanding for each in jobs):
                self.first -= 1
                message.phase = Phase.ENDING
                line = logline.end_msg(message.messid)
                self.plan(message, settle.finish_first(message, line))
            elif sum(len(each.settled) for each in jobs) == 1:
                self.partial.append((now_mono + FIRST_PARTIAL_S, message.messid))

    def drop_idle(self, message: Message) -> None:
        """Forget a message that has neither jobs nor plans."""
        if not message.jobs and not message.plans:
            self.messages.pop(message.messid, None)
            self._actions.append(Forget(message.messid))
