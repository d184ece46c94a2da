"""Does the steps of plans, in order, each message's plans one after another.

A step that fails is tried again later: the plan goes on from the last point known
to be durable, a preprocessing from its beginning. Nothing is skipped but marks
whose loss only repeats a delivery. Source: core/plan.py; fates as qmail-send.c.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from qsend.core import logline
from qsend.core.errors import QueueCorrupt
from qsend.core.model import FileIdentity, MessId
from qsend.core.plan import (
    AppendBounce,
    MarkDone,
    Plan,
    Purpose,
    RemoveMess,
    RemoveTodo,
    Say,
    SendBounce,
    SetAside,
    SetDue,
    Step,
    Sync,
    SyncLater,
    UnlinkBounce,
    UnlinkInfo,
    UnlinkRecips,
    WriteInfo,
    WriteRecips,
)
from qsend.formats import paths
from qsend.formats.recips import render_recips
from qsend.sysio.fsq import Queue

RETRY_S = 123.0
"""After a system error on a message (qmail-send.c SLEEP_SYSFAIL)."""
RETRY_BOUNCE_S = 10.0
"""After a failure to note a failed recipient (qmail-send.c addbounce)."""

Answer = Callable[[OSError | None], None]


class Timers(Protocol):
    """What the executor needs of a loop."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call back after a delay."""


class Committer(Protocol):
    """Makes what was written durable; sysio/syncer.py."""

    def commit(
        self,
        files: Sequence[int],
        dirs: Sequence[int],
        done: Answer,
        *,
        lazy: bool = False,
    ) -> None:
        """See Syncer.commit."""


class Cleaner(Protocol):
    """Removes what only clean may remove; answers with an error or None."""

    def todo(self, messid: MessId, answer: Answer) -> None:
        """Remove intd/N and todo/N."""

    def foop(self, messid: MessId, identity: FileIdentity, answer: Answer) -> None:
        """Remove intd/N, todo/N, then mess/N if it is the file meant."""

    def aside(self, messid: MessId, reason: str, answer: Answer) -> None:
        """Move the files of a damaged message to aside/."""


class Bouncer(Protocol):
    """Queues bounces; answers True when it is queued, or none is owed."""

    def send(
        self, messid: MessId, sender: bytes, answer: Callable[[bool], None]
    ) -> None:
        """Queue the bounce of bounce/N for a message from `sender`."""


class _Run:
    """One plan under way: next step, where a retry resumes, what is not synced."""

    __slots__ = ("at", "dirs", "files", "plan", "resume")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.at = 0
        self.resume = 0
        self.files: list[int] = []
        self.dirs: set[int] = set()


class Executor:
    """Executes plans on the queue directory."""

    def __init__(
        self,
        loop: Timers,
        queue: Queue,
        syncer: Committer,
        cleaner: Cleaner,
        bouncer: Bouncer,
        say: Callable[[bytes], None],
        done: Callable[[Plan], None],
    ) -> None:
        """`say` writes a log line; `done` is told of every plan completed."""
        self._loop = loop
        self._queue = queue
        self._syncer = syncer
        self._cleaner = cleaner
        self._bouncer = bouncer
        self._say = say
        self._done = done
        self._plans: dict[MessId, deque[_Run]] = {}
        self._paused: set[MessId] = set()

    def submit(self, plan: Plan) -> None:
        """Execute a plan after those already submitted for its message."""
        runs = self._plans.get(plan.messid)
        if runs is not None:
            runs.append(_Run(plan))
            return
        self._plans[plan.messid] = deque((_Run(plan),))
        self._go(plan.messid)

    def idle(self) -> bool:
        """Whether no plan is under way.

        One that waits to be tried again is not: any plan may end between steps,
        and the next start goes on from what is on disk.
        """
        return self._plans.keys() <= self._paused

    def _go(self, messid: MessId) -> None:
        """Run the message's plans as far as they go without waiting."""
        runs = self._plans[messid]
        while runs:
            run = runs[0]
            try:
                while run.at < len(run.plan.steps):
                    if not self._do(run, run.plan.steps[run.at]):
                        return
                    run.at += 1
            except OSError as exc:
                self._fail(run, exc)
                return
            except QueueCorrupt as exc:
                self._fail(run, OSError(errno.EIO, str(exc)))
                return
            runs.popleft()
            if not runs:
                del self._plans[messid]
            self._done(run.plan)
            if messid not in self._plans or self._plans[messid] is not runs:
                return

    def _resume(self, run: _Run, error: OSError | None) -> None:
        """A step that waited is answered."""
        if error is not None:
            self._fail(run, error)
            return
        run.at += 1
        run.resume = run.at
        self._go(run.plan.messid)

    def _fail(self, run: _Run, error: OSError) -> None:
        step = run.plan.steps[run.at]
        messid = run.plan.messid
        for fd in run.files:
            self._queue.close_fd(fd)
        run.files.clear()
        run.dirs.clear()
        what = type(step).__name__
        self._say(
            logline.warning(
                f"trouble with {paths.mess(messid)} ({what}): {error.strerror}; "
                "will try again later"
            )
        )
        run.at = 0 if run.plan.purpose is Purpose.PREPROCESS else run.resume
        bouncing = any(
            isinstance(each, AppendBounce) for each in run.plan.steps[run.at :]
        )
        delay_s = RETRY_BOUNCE_S if bouncing else RETRY_S
        self._paused.add(messid)
        self._loop.call_later(delay_s, lambda: self._again(run))

    def _again(self, run: _Run) -> None:
        self._paused.discard(run.plan.messid)
        if run.plan.purpose is Purpose.PREPROCESS:
            try:
                self._queue.unlink_stale(run.plan.messid)
            except OSError as exc:
                self._fail(run, exc)
                return
        self._go(run.plan.messid)

    def _do(self, run: _Run, step: Step) -> bool:
        """Do one step; False when it is under way and `_resume` goes on."""
        match step:
            case Sync() | RemoveTodo() | SendBounce() | RemoveMess() | SetAside():
                self._begin(run, step)
                return False
            case SyncLater():
                files, dirs = run.files, tuple(run.dirs)
                run.files, run.dirs = [], set()
                self._syncer.commit(files, dirs, self._synced_late, lazy=True)
            case Say(line):
                self._say(line)
            case _:
                self._change(run, step)
        return True

    def _begin(
        self, run: _Run, step: Sync | RemoveTodo | SendBounce | RemoveMess | SetAside
    ) -> None:
        messid = run.plan.messid

        def answer(error: OSError | None) -> None:
            self._resume(run, error)

        match step:
            case Sync():
                files, dirs = run.files, tuple(run.dirs)
                run.files, run.dirs = [], set()
                self._syncer.commit(files, dirs, answer)
            case RemoveTodo():
                self._cleaner.todo(messid, answer)
            case RemoveMess(identity):
                try:
                    known = identity or self._queue.stat_mess(messid)
                except FileNotFoundError:
                    self._loop.call_soon(lambda: answer(None))
                    return
                self._cleaner.foop(messid, known, answer)
            case SetAside(reason):
                self._cleaner.aside(messid, reason, answer)
            case SendBounce(sender):
                self._bouncer.send(
                    messid,
                    sender,
                    lambda sent: answer(None if sent else OSError(0, "not queued")),
                )
            case _:
                assert_never(step)

    def _change(
        self,
        run: _Run,
        step: WriteInfo
        | WriteRecips
        | AppendBounce
        | MarkDone
        | SetDue
        | UnlinkRecips
        | UnlinkBounce
        | UnlinkInfo,
    ) -> None:
        """Change a file of send's own; what must be synced is noted in the run."""
        queue, messid = self._queue, run.plan.messid
        match step:
            case WriteInfo(sender, birth_ns, notes):
                run.files.append(queue.create_info(messid, sender, birth_ns, notes))
                run.dirs.add(queue.dir_fd("info", messid))
            case WriteRecips(channel, records):
                done = {at for at, (is_done, _) in enumerate(records) if is_done}
                data, _ = render_recips([address for _, address in records], done)
                run.files.append(queue.create_recips(channel, messid, data, None))
                run.dirs.add(queue.dir_fd(channel.value, messid))
            case AppendBounce(text):
                run.files.append(queue.append_bounce(messid, text))
                run.dirs.add(queue.dir_fd("bounce"))
            case MarkDone() | SetDue():
                self._mark(run, step)
            case UnlinkRecips(channel):
                queue.unlink_recips(channel, messid)
                run.dirs.add(queue.dir_fd(channel.value, messid))
            case UnlinkBounce():
                queue.unlink_bounce(messid)
                run.dirs.add(queue.dir_fd("bounce"))
            case UnlinkInfo():
                queue.unlink_info(messid)
                run.dirs.add(queue.dir_fd("info", messid))
            case _:
                assert_never(step)

    def _mark(self, run: _Run, step: MarkDone | SetDue) -> None:
        """A mark that cannot be made only repeats a delivery: say so and go on."""
        messid = run.plan.messid
        path = paths.recips(step.channel, messid)
        try:
            match step:
                case MarkDone(channel, offsets):
                    run.files.append(self._queue.mark_done(channel, messid, offsets))
                case SetDue(channel, due):
                    self._queue.set_due(channel, messid, due)
        except (OSError, QueueCorrupt):
            said = (
                f"trouble marking {path}; message will be delivered twice!"
                if isinstance(step, MarkDone)
                else f"unable to utime {path}; message will be retried too soon"
            )
            self._say(logline.warning(said))

    def _synced_late(self, error: OSError | None) -> None:
        if error is not None:
            self._say(logline.warning(f"trouble fsyncing marks: {error.strerror}"))
