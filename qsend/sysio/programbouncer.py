"""Queues bounces by running qmail-queue, where no enqueue process serves.

One program per bounce, fed as fast as it reads; send goes on meanwhile. Its exit code
decides. Source: qmail-send.c injectbounce(); qmail.c qmail_open(); qmail-queue(8).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qsend.core import logline
from qsend.core.bounce import Identity
from qsend.core.errors import QueueCorrupt
from qsend.core.model import MessId
from qsend.formats.todo import render_wire
from qsend.sysio.bouncer import Answer, content_of, head_of
from qsend.sysio.fsq import Queue
from qsend.sysio.loop import READ, WRITE, Loop


@dataclass(slots=True, kw_only=True)
class _Run:
    """A program at work; `parts` is what it still has to read, per descriptor."""

    messid: MessId
    answer: Answer
    pid: int
    end_fd: int
    parts: list[tuple[int, Iterator[bytes]]]
    rest: memoryview
    is_whole: bool = True


class ProgramBouncer:
    """Runs `program` for each bounce; several may be under way."""

    def __init__(
        self,
        loop: Loop,
        queue: Queue,
        program: str,
        identity: Callable[[], Identity],
        say: Callable[[bytes], None],
    ) -> None:
        """`identity` gives the controls in force; `say` writes a log line."""
        self._loop = loop
        self._queue = queue
        self._program = program
        self._identity = identity
        self._say = say

    def send(self, messid: MessId, sender: bytes, answer: Answer) -> None:
        """Queue the bounce of bounce/N; `answer(True)` when that is done or moot."""
        try:
            head = head_of(self._queue, messid, sender, self._identity(), self._say)
        except OSError:
            self._fail(answer)
            return
        if head is None:
            self._loop.call_soon(lambda: answer(True))
            return
        try:
            pid, message, envelope = _start(self._program)
        except OSError:
            self._say(logline.warning("unable to start qmail-queue, will try later"))
            self._loop.call_soon(lambda: answer(False))
            return
        run = _Run(
            messid=messid,
            answer=answer,
            pid=pid,
            end_fd=os.pidfd_open(pid),
            parts=[
                (message, content_of(self._queue, messid, head)),
                (envelope, iter([render_wire(head.sender, [head.recip])])),
            ],
            rest=memoryview(b""),
        )
        self._loop.register(run.end_fd, READ, lambda _mask: self._ended(run))
        self._loop.register(message, WRITE, lambda _mask: self._feed(run))

    def _feed(self, run: _Run) -> None:
        """Write what the program takes now; after the message its envelope."""
        fd, pieces = run.parts[0]
        try:
            while run.rest or self._next(run, pieces):
                run.rest = run.rest[os.write(fd, run.rest) :]
        except BlockingIOError:
            return
        except (OSError, QueueCorrupt):
            # It reads no more, or the queue cannot be read: an end without an
            # envelope tells it to queue nothing.
            self._give_up(run)
            return
        self._loop.unregister(fd)
        os.close(fd)
        del run.parts[0]
        if run.parts:
            self._loop.register(run.parts[0][0], WRITE, lambda _mask: self._feed(run))

    def _next(self, run: _Run, pieces: Iterator[bytes]) -> bool:
        piece = next(pieces, None)
        while piece == b"":
            piece = next(pieces, None)
        run.rest = memoryview(piece or b"")
        return piece is not None

    def _give_up(self, run: _Run) -> None:
        run.is_whole = False
        if run.parts:
            self._loop.unregister(run.parts[0][0])
        for fd, _pieces in run.parts:
            os.close(fd)
        run.parts.clear()

    def _ended(self, run: _Run) -> None:
        self._loop.unregister(run.end_fd)
        os.close(run.end_fd)
        if run.parts:
            self._give_up(run)
        _, status = os.waitpid(run.pid, 0)
        if os.waitstatus_to_exitcode(status) == 0 and run.is_whole:
            self._say(logline.bounce_msg(run.messid, run.pid))
            run.answer(True)
        else:
            self._fail(run.answer)

    def _fail(self, answer: Answer) -> None:
        self._say(logline.warning("trouble injecting bounce message, will try later"))
        self._loop.call_soon(lambda: answer(False))


def _start(program: str) -> tuple[int, int, int]:
    """Run it; its pid, and what to write message and envelope to, never blocking.

    Raises: OSError when it cannot be run.
    """
    theirs, ours = [], []
    try:
        for _ in range(2):
            read, write = os.pipe2(os.O_CLOEXEC)
            theirs.append(read)
            ours.append(write)
        pid = os.posix_spawn(
            program,
            [program],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs[0], 0),
                (os.POSIX_SPAWN_DUP2, theirs[1], 1),
            ],
            # Python ignores these, and an exec would hand that on.
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
    except OSError:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    for fd in ours:
        os.set_blocking(fd, False)
    return pid, ours[0], ours[1]
