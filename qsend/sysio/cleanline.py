"""send's line to clean: our own batched wire, or a classic cleaner's bytes.

Both answer a request with an OSError or None. The log is written before anything
is asked for, so that no message is gone before its lines are. A lost cleaner is
fatal: start replaces send and clean as a pair. Source: protocols of qmail-clean.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable

from qsend.core.errors import Fatal, RemoteProtocolError
from qsend.core.model import FileIdentity, MessId
from qsend.formats import cleanwire
from qsend.formats.classic import CLEAN_DONE, CleanCommand, CleanOp, render_clean
from qsend.sysio.endpoint import Descriptors, Endpoint
from qsend.sysio.loop import Loop
from qsend.sysio.wire import Wire

Answer = Callable[[OSError | None], None]

LOST = "oh no! lost qmail-clean connection! dying..."


def _failure(code: int) -> OSError | None:
    return OSError(code, os.strerror(code)) if code else None


class CleanLine:
    """The line to our own clean."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        flush_log: Callable[[], None],
        move_own: Callable[[MessId, int], object],
        now: Callable[[], int],
    ) -> None:
        """`move_own(messid, stamp)` moves send's files aside after clean's."""
        self._loop = loop
        self._flush_log = flush_log
        self._move_own = move_own
        self._now = now
        self._frames: list[bytes] = []
        self._answers: dict[tuple[bytes, MessId], Answer] = {}
        self._endpoint = Endpoint(loop, sock, self._frame, self._lost)

    def todo(self, messid: MessId, answer: Answer) -> None:
        """Remove intd/N and todo/N."""
        self._ask(cleanwire.TODO, messid, cleanwire.render_todo(messid), answer)

    def foop(self, messid: MessId, identity: FileIdentity, answer: Answer) -> None:
        """Remove intd/N and todo/N, then mess/N if it is the file meant.

        That it is another file by now counts as done: ours is gone.
        """

        def settled(error: OSError | None) -> None:
            gone = error is not None and error.errno == errno.ESTALE
            answer(None if gone else error)

        frame = cleanwire.render_foop(messid, identity)
        self._ask(cleanwire.FOOP, messid, frame, settled)

    def sweep(self, messid: MessId, identity: FileIdentity, answer: Answer) -> None:
        """Remove an orphan: as `foop`, but only if it has no todo/N."""
        frame = cleanwire.render_foop(messid, identity, orphan=True)
        self._ask(cleanwire.FOOP, messid, frame, answer)

    def aside(self, messid: MessId, reason: str, answer: Answer) -> None:
        """Move the files of a damaged message to aside/<N>.<now>/."""
        stamp = self._now()

        def moved(error: OSError | None) -> None:
            try:
                if error is None:
                    self._move_own(messid, stamp)
            except OSError as exc:
                error = exc
            answer(error)

        text = reason.encode("ascii", "backslashreplace")
        frame = cleanwire.render_aside(messid, stamp, text)
        self._ask(cleanwire.ASIDE, messid, frame, moved)

    def _ask(self, op: bytes, messid: MessId, frame: bytes, answer: Answer) -> None:
        self._answers[op, messid] = answer
        if not self._frames:
            self._loop.call_soon(self._send)
        self._frames.append(frame)

    def _send(self) -> None:
        self._flush_log()
        frames, self._frames = self._frames, []
        for frame in frames:
            self._endpoint.send(frame)

    def _frame(self, kind: bytes, body: bytes, _fds: Descriptors) -> None:
        done = cleanwire.parse_answer(kind, body)
        answer = self._answers.pop((done.op, done.messid), None)
        if answer is None:
            raise RemoteProtocolError("answer to nothing that was asked")
        answer(_failure(done.errno))

    def _lost(self, _reason: str) -> None:
        raise Fatal(LOST)


class ClassicCleanLine:
    """The line to a classic cleaner: one command, one byte back, in order.

    It compares nothing before it removes, so nothing else may be said about a
    message before its answer; with one command outstanding this holds.
    """

    def __init__(
        self,
        loop: Loop,
        wire: Wire,
        flush_log: Callable[[], None],
        is_waiting: Callable[[MessId], bool],
    ) -> None:
        """`is_waiting(messid)` tells whether todo/N exists."""
        self._wire = wire
        self._flush_log = flush_log
        self._is_waiting = is_waiting
        self._queue: deque[tuple[bytes, Answer]] = deque()
        self._busy = False
        wire.serve(loop, self._ready)

    def todo(self, messid: MessId, answer: Answer) -> None:
        """Remove intd/N and todo/N."""
        self._ask(CleanCommand(op=CleanOp.TODO, messid=messid), answer)

    def foop(self, messid: MessId, _identity: FileIdentity, answer: Answer) -> None:
        """Remove todo/N first (a classic `foop` leaves it), then intd/N and mess/N."""

        def todo_gone(error: OSError | None) -> None:
            if error is not None:
                answer(error)
            else:
                self._ask(CleanCommand(op=CleanOp.FOOP, messid=messid), answer)

        self.todo(messid, todo_gone)

    def sweep(self, messid: MessId, _identity: FileIdentity, answer: Answer) -> None:
        """Remove an orphan."""
        if self._is_waiting(messid):
            answer(_failure(errno.ESTALE))
        else:
            self._ask(CleanCommand(op=CleanOp.FOOP, messid=messid), answer)

    def aside(self, messid: MessId, _reason: str, answer: Answer) -> None:
        """A classic cleaner cannot: the message stays, and is not touched again."""
        answer(None)

    def _ask(self, command: CleanCommand, answer: Answer) -> None:
        self._queue.append((render_clean(command), answer))
        if not self._busy:
            self._write()

    def _write(self) -> None:
        self._busy = True
        self._flush_log()
        try:
            self._wire.write(self._queue[0][0])
        except OSError as exc:
            raise Fatal(LOST) from exc

    def _ready(self) -> None:
        try:
            reply = self._wire.read(1)
        except BlockingIOError:
            return
        except OSError as exc:
            raise Fatal(LOST) from exc
        if not reply or not self._busy:
            raise Fatal(LOST)
        _command, answer = self._queue.popleft()
        self._busy = False
        if self._queue:
            self._write()
        answer(None if reply == CLEAN_DONE else _failure(errno.EIO))
