"""One message on its way from a client into the queue.

Bytes go to disk as they come; the envelope is checked as it comes. After COMMIT
two durable rounds follow: mess/N with its entry and intd/N, then
the entry todo/N. Exactly one answer is given, whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Protocol

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import MessId
from qsend.core.quota import Share
from qsend.formats.queueexit import QueueExit
from qsend.formats.received import render_received
from qsend.formats.todo import EnvelopeReader, render_head
from qsend.sysio import clock
from qsend.sysio.callers import Caller
from qsend.sysio.queuewriter import Draft, QueueTrouble, QueueWriter, trouble

LAG_MAX_S = 10.0
"""Syncs that take longer mean a disk that cannot keep up; a round takes milliseconds,
and clients wait for minutes."""
FILE_BYTES = 4096
"""control/queueminfree counts so many bytes as one file that can be made."""
SPACE_STEP = 1 << 20
"""Bytes of one message between two looks at the free space."""


class Committer(Protocol):
    """What a stream needs of a Syncer."""

    def commit(
        self,
        files: Sequence[int],
        dirs: Sequence[int],
        done: Callable[[OSError | None], None],
    ) -> None:
        """Make durable, close the files, call `done`."""


class Intake:
    """What all streams of one process share.

    `min_free` may change at any time. `on_trouble` gets what the operator should
    know; a client's own mistakes are not told.
    """

    def __init__(
        self,
        writer: QueueWriter,
        committer: Committer,
        *,
        min_free: int,
        start_pid: int,
        on_queued: Callable[[MessId], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        """`start_pid` tells forwards of local deliveries (see Caller); 0: none."""
        self.writer = writer
        self.committer = committer
        self.min_free = min_free
        self.is_pressed = False
        """Whether send has too many messages that it has not taken up."""
        self._committed_mono: dict[Stream, float] = {}
        self._start_pid = start_pid
        self.on_queued = on_queued
        self.on_trouble = on_trouble

    def may_exceed(self, caller: Caller) -> bool:
        """Whether nothing but a full disk may stop this caller."""
        return caller.is_exempt or caller.is_forward(self._start_pid)

    def check_space(self, caller: Caller) -> None:
        """Raises: QueueTrouble with WRITE when less than min_free is left."""
        self._check(caller, self._lack())

    def check_room(self, caller: Caller) -> None:
        """Whether one more message can be stored and worked on.

        Raises: QueueTrouble: WRITE as check_space, BUSY when send or the disk is
            far behind.
        """
        self._check(caller, self._lack() or self._overload())

    def _check(self, caller: Caller, problem: QueueTrouble | None) -> None:
        if problem is not None and not self.may_exceed(caller):
            raise problem

    def _lack(self) -> QueueTrouble | None:
        """Of bytes, or of files that can be made. Raises: QueueTrouble."""
        # No changing numbers in the texts: the log tells the same thing once.
        try:
            free_bytes, free_files = self.writer.free()
        except OSError as exc:
            raise trouble(QueueExit.WRITE, exc) from exc
        if free_bytes < self.min_free:
            text = f"control/queueminfree: {self.min_free} are not free"
            return QueueTrouble(QueueExit.WRITE, text)
        least = self.min_free // FILE_BYTES
        if free_files is not None and free_files < least:
            text = f"control/queueminfree: the disk has no {least} files left"
            return QueueTrouble(QueueExit.WRITE, text)
        return None

    def _overload(self) -> QueueTrouble | None:
        if self.is_pressed:
            text = "qmail-send has too many messages that it has not taken up"
            return QueueTrouble(QueueExit.BUSY, text)
        since_mono = next(iter(self._committed_mono.values()), None)
        if since_mono is not None and clock.mono() - since_mono > LAG_MAX_S:
            text = f"the disk takes longer than {LAG_MAX_S:.0f} s to sync"
            return QueueTrouble(QueueExit.BUSY, text)
        return None

    def committed(self, stream: Stream) -> None:
        """It is complete, and now waits for the disk."""
        self._committed_mono[stream] = clock.mono()

    def settled(self, stream: Stream) -> None:
        """It does not wait any more; harmless for one that did not."""
        self._committed_mono.pop(stream, None)


class State(Enum):
    """Where a stream is; every frame that does not fit is a protocol error."""

    MESSAGE = auto()
    ENVELOPE = auto()
    SYNCING = auto()
    ANSWERED = auto()
    """Failed before COMMIT; the rest of what the client sends is skipped."""
    OVER = auto()


INCOMPLETE = (State.MESSAGE, State.ENVELOPE)


class Stream:
    """See the module. Methods raise RemoteProtocolError, and nothing else."""

    def __init__(
        self,
        intake: Intake,
        caller: Caller,
        qp: int,
        share: Share,
        answer: Callable[[Stream, QueueExit], None],
    ) -> None:
        """Prepare; `begin` comes next. `answer` is called once, unless aborted."""
        self.caller = caller
        self.qp = qp
        self.state = State.MESSAGE
        self.birth_mono = clock.mono()
        self._intake = intake
        self._share = share
        self._answer = answer
        self._reader = EnvelopeReader()
        self._draft: Draft | None = None
        self._stored = 0
        self._next_look = SPACE_STEP

    def begin(self) -> None:
        """Open the message's file and write its Received line."""
        line = render_received(self.qp, self.caller.who, clock.now())
        try:
            self._intake.check_room(self.caller)
            self._check_room(len(line), QueueExit.BUSY)
            self._draft = self._intake.writer.begin(line)
        except QueueTrouble as exc:
            self._trouble(exc)

    def message(self, data: bytes) -> None:
        """Take bytes of the message."""
        if self.state is State.MESSAGE:
            self._store(Draft.write_message, data)
        elif self.state is not State.ANSWERED:
            raise RemoteProtocolError("message bytes after the envelope")

    def envelope(self, data: bytes) -> None:
        """Take bytes of the envelope."""
        if self.state is State.MESSAGE:
            self.state = State.ENVELOPE
            head = render_head(self.caller.uid, self.qp)
            self._store(Draft.write_envelope, head)
        if self.state is State.ENVELOPE:
            self._check_envelope(data)
        elif self.state is not State.ANSWERED:
            raise RemoteProtocolError("envelope bytes after COMMIT")

    def commit(self) -> None:
        """The client has said all; `state` is OVER if it was answered before."""
        if self.state is State.ANSWERED:
            self.state = State.OVER
            return
        if self.state not in INCOMPLETE:
            raise RemoteProtocolError("second COMMIT")
        code = self._reader.finish()
        self.state = State.SYNCING
        if code or self._draft is None:
            self.fail(code or QueueExit.BUG)
            return
        try:
            files, dirs = self._draft.seal()
        except QueueTrouble as exc:
            self._trouble(exc)
            return
        self._intake.committed(self)
        self._intake.committer.commit(files, dirs, self._publish)

    def abort(self) -> None:
        """Forget the message, unless it is complete already: then it stays."""
        if self.state is not State.SYNCING:
            self.state = State.OVER
            self._discard()

    def fail(self, code: QueueExit) -> None:
        """Leave nothing behind and answer `code`."""
        is_committed = self.state is State.SYNCING
        self._intake.settled(self)
        self.state = State.OVER if is_committed else State.ANSWERED
        self._discard()
        self._answer(self, code)

    def _check_envelope(self, data: bytes) -> None:
        kept = self._reader.feed(data)
        if self._reader.error:
            self.fail(self._reader.error)
        else:
            self._store(Draft.write_envelope, kept)

    def _store(self, write: Callable[[Draft, bytes], None], data: bytes) -> None:
        if self._draft is None:
            return
        try:
            self._check_room(len(data), QueueExit.WRITE)
            write(self._draft, data)
        except QueueTrouble as exc:
            self._trouble(exc)

    def _check_room(self, more: int, code: QueueExit) -> None:
        """Count bytes. Raises: QueueTrouble: over quota `code`, no space WRITE."""
        if self._share.is_over(more) and not self._intake.may_exceed(self.caller):
            raise QueueTrouble(code, f"uid {self.caller.uid} is over its limits")
        self._share.grow(more)
        self._stored += more
        if self._stored >= self._next_look:
            self._next_look = self._stored + SPACE_STEP
            self._intake.check_space(self.caller)

    def _publish(self, error: OSError | None) -> None:
        """When the first round is over. +mess +intd, durable unless `error`."""
        if error is not None or self._draft is None:
            self._trouble(trouble(QueueExit.WRITE, error or OSError()))
            return
        try:
            dirs = self._draft.publish()
        except QueueTrouble as exc:
            self._trouble(exc)
            return
        self._intake.committer.commit((), dirs, self._finish)

    def _finish(self, error: OSError | None) -> None:
        """When the second round is over. +todo, durable unless `error`."""
        draft = self._draft
        if error is not None or draft is None:
            # It may be in the queue for good and under way: at worst twice.
            self._trouble(trouble(QueueExit.TODO, error or OSError()))
            return
        self._draft = None
        self._share.end()
        self.state = State.OVER
        self._intake.settled(self)
        self._intake.on_queued(draft.messid)
        self._answer(self, QueueExit.QUEUED)

    def _trouble(self, exc: QueueTrouble) -> None:
        self._intake.on_trouble(str(exc))
        self.fail(exc.code)

    def _discard(self) -> None:
        self._share.end()
        draft, self._draft = self._draft, None
        if draft is None:
            return
        try:
            draft.discard()
        except OSError as exc:
            # S2 or S3 stays; the sweep removes it after 36 hours.
            self._intake.on_trouble(f"cannot remove message {draft.messid}: {exc}")
