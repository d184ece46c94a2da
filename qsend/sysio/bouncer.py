"""Queues bounces through enqueue: the text, the report, the returned message.

A bounce streams as fast as enqueue takes it and holds no more than a few frames
in memory. Source: core/bounce.py; qmail-send.c injectbounce.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from qsend.core import logline
from qsend.core.bounce import BounceHead, Identity, compose
from qsend.core.calendar import render_date
from qsend.core.model import MessId
from qsend.formats import injection
from qsend.formats.todo import render_wire
from qsend.sysio import clock
from qsend.sysio.endpoint import Endpoint
from qsend.sysio.fsq import Queue

WINDOW = 8
"""Packets enqueue may be behind before a bounce waits."""

Answer = Callable[[bool], None]


class Bouncer:
    """Sends bounces over send's line to enqueue; several may be under way."""

    def __init__(
        self,
        queue: Queue,
        identity: Callable[[], Identity],
        say: Callable[[bytes], None],
    ) -> None:
        """`identity` gives the controls in force; `say` writes a log line."""
        self._queue = queue
        self._identity = identity
        self._say = say
        self._endpoint: Endpoint | None = None
        self._stream = 0
        self._answers: dict[int, tuple[MessId, Answer]] = {}
        self._sending: dict[int, Iterator[bytes]] = {}

    def attach(self, endpoint: Endpoint) -> None:
        """Use this line from now on; the one before ends now, with what it has."""
        if self._endpoint is not None:
            self._endpoint.close("replaced")
        self._endpoint = endpoint

    def lost(self) -> None:
        """The line is gone: what is not answered is to be tried again."""
        self._endpoint = None
        self._sending.clear()
        answers, self._answers = self._answers, {}
        for messid, answer in answers.values():
            self._fail(messid, answer)

    def send(self, messid: MessId, sender: bytes, answer: Answer) -> None:
        """Queue the bounce of bounce/N; `answer(True)` when that is done or moot."""
        try:
            head = head_of(self._queue, messid, sender, self._identity(), self._say)
        except OSError:
            self._fail(messid, answer)
            return
        if head is None:
            answer(True)
            return
        if self._endpoint is None:
            self._say(logline.warning("unable to start qmail-queue, will try later"))
            answer(False)
            return
        self._stream += 1
        self._answers[self._stream] = (messid, answer)
        self._sending[self._stream] = self._frames(messid, head, self._stream)
        self.push()

    def push(self) -> None:
        """Hand enqueue the next frames as far as it keeps up; call it every turn."""
        for stream, frames in list(self._sending.items()):
            while self._endpoint is not None and self._endpoint.backlog < WINDOW:
                try:
                    frame = next(frames, None)
                except OSError:
                    frame = None
                    self._abort(stream)
                if frame is None:
                    self._sending.pop(stream, None)
                    break
                self._endpoint.send(frame)
                if len(frame) > injection.CHUNK_MAX // 2:
                    self._endpoint.flush()

    @property
    def busy(self) -> bool:
        """Whether a bounce is not fully handed over yet."""
        return bool(self._sending)

    def answered(self, body: bytes) -> None:
        """A RESULT frame came. Raises: RemoteProtocolError."""
        stream, code, qp = injection.parse_result(body)
        self._sending.pop(stream, None)
        messid, answer = self._answers.pop(stream, (MessId(0), None))
        if answer is None:
            return
        if code:
            self._fail(messid, answer)
        else:
            self._say(logline.bounce_msg(messid, qp))
            answer(True)

    def _abort(self, stream: int) -> None:
        messid, answer = self._answers.pop(stream)
        if self._endpoint is not None:
            self._endpoint.send(injection.render_word(injection.ABORT, stream))
        self._fail(messid, answer)

    def _fail(self, _messid: MessId, answer: Answer) -> None:
        self._say(logline.warning("trouble injecting bounce message, will try later"))
        answer(False)

    def _frames(self, messid: MessId, head: BounceHead, stream: int) -> Iterator[bytes]:
        """Every frame of one bounce; opens files when first asked."""
        for block in content_of(self._queue, messid, head):
            yield from injection.render_chunks(injection.MESSAGE, stream, block)
        yield from injection.render_chunks(
            injection.ENVELOPE, stream, render_wire(head.sender, [head.recip])
        )
        yield injection.render_word(injection.COMMIT, stream)


def head_of(
    queue: Queue,
    messid: MessId,
    sender: bytes,
    identity: Identity,
    say: Callable[[bytes], None],
) -> BounceHead | None:
    """How the bounce of bounce/N begins; None, said where need be, when none is owed.

    Raises: OSError when the queue does not tell.
    """
    if not queue.bounce_exists(messid):
        return None
    head = compose(sender, identity, render_date(clock.now()))
    if head is None:
        say(logline.triple_bounce(messid))
    return head


def content_of(queue: Queue, messid: MessId, head: BounceHead) -> Iterator[bytes]:
    """The bounce, in pieces; opens files when first asked. Raises: OSError."""
    yield head.before
    bounce_fd, _size = queue.open_bounce(messid)
    yield from _blocks(bounce_fd)
    yield head.after
    mess_fd, _identity = queue.open_mess(messid)
    yield from _blocks(mess_fd)


def _blocks(fd: int) -> Iterator[bytes]:
    try:
        while block := os.read(fd, injection.CHUNK_MAX):
            yield block
    finally:
        os.close(fd)
