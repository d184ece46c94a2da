"""A listener's line to enqueue: many messages at a time over one socket.

Bytes go on as they come, so that a message never has to fit into memory; who sends
faster than enqueue writes waits for `room`. Belongs to an asyncio loop.
Source: formats/injection.py; docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from qsend.core.errors import RemoteProtocolError
from qsend.formats import frames, injection
from qsend.formats.queueexit import QueueExit
from qsend.formats.todo import render_wire
from qsend.sysio.endpoint import Descriptors, Endpoint, Poller

_BACKLOG_MAX = 8
"""Packets, 64 KiB each, that may wait for enqueue before clients are not heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """How a message ended: `code` is qmail-queue's exit code, 0 when it is queued.

    `qp` is the number for the log, `custom` what a queueing program said itself.
    """

    code: int
    qp: int = 0
    custom: bytes = b""


class Letter:
    """One message on its way; made by IntakeLine.begin.

    `ended` is set as soon as enqueue has said how it ends, which may be long before
    all of it was given: no room on the disk is said at once.
    """

    __slots__ = ("_line", "_number", "_waiter", "ended")

    def __init__(self, line: IntakeLine, number: int) -> None:
        self.ended: Queued | None = None
        self._line = line
        self._number = number
        self._waiter: asyncio.Future[Queued] | None = None

    def write(self, data: bytes) -> None:
        """Hand on bytes of the message."""
        if self.ended is None:
            self._line.send_chunks(injection.MESSAGE, self._number, data)

    async def room(self) -> None:
        """Wait until enqueue has taken most of what was written."""
        await self._line.room()

    def envelope(self, data: bytes) -> None:
        """Hand on bytes of the envelope in the form of qmail-queue's descriptor 1."""
        if self.ended is None:
            self._line.send_chunks(injection.ENVELOPE, self._number, data)

    async def commit(self, sender: bytes, recips: tuple[bytes, ...]) -> Queued:
        """`envelope` with the whole of it, and `finish`.

        Raises: LocalProtocolError when an address holds a NUL.
        """
        self.envelope(render_wire(sender, recips))
        return await self.finish()

    async def finish(self) -> Queued:
        """All was given: have it queued. Call it once, and nothing after it."""
        # Also after an early answer: enqueue keeps the number until then.
        self._line.send(injection.render_word(injection.COMMIT, self._number))
        self._line.flush()
        if self.ended is not None:
            self._line.forget(self._number)
            return self.ended
        self._waiter = asyncio.get_running_loop().create_future()
        return await self._waiter

    def abort(self) -> None:
        """Forget the message, unless it was committed: then it stays."""
        if self._waiter is None:
            self._line.send(injection.render_word(injection.ABORT, self._number))
            self._line.forget(self._number)

    def end(self, queued: Queued) -> None:
        """For IntakeLine."""
        if self.ended is None:
            self.ended = queued
        if self._waiter is not None:
            self._line.forget(self._number)
            if not self._waiter.done():
                self._waiter.set_result(self.ended)


class IntakeLine:
    """The socket to enqueue, and the messages that are on their way over it."""

    def __init__(self, poller: Poller) -> None:
        """Without a socket yet; `attach` comes next."""
        self._poller = poller
        self._endpoint: Endpoint | None = None
        self._letters: dict[int, Letter] = {}
        self._next_number = 0
        self._has_room = asyncio.Event()

    def attach(self, sock: socket.socket) -> None:
        """Use this socket from now on."""
        if self._endpoint is not None:
            self._endpoint.close("replaced")
        self._endpoint = Endpoint(
            self._poller,
            sock,
            self._hear,
            lambda _reason: self._lost(),
            on_drained=self._has_room.set,
        )

    def begin(self) -> Letter:
        """A new message; without enqueue it has ended already."""
        number = self._next_number
        self._next_number = (number + 1) % injection.WHOLE_CONNECTION
        letter = Letter(self, number)
        if self._endpoint is None or self._endpoint.closed:
            letter.ended = Queued(code=QueueExit.BUSY)
        elif number in self._letters:
            # Four thousand million messages ago, and not over.
            letter.ended = Queued(code=QueueExit.BUSY)
        else:
            self._letters[number] = letter
        return letter

    # For letters

    def send_chunks(self, kind: bytes, number: int, data: bytes) -> None:
        """Send `data` in frames."""
        for part in injection.render_chunks(kind, number, data):
            self.send(part)

    def send(self, part: bytes) -> None:
        """Send one frame."""
        if self._endpoint is not None:
            self._endpoint.send(part)

    def flush(self) -> None:
        """Send now what else would leave at the end of the turn."""
        if self._endpoint is not None:
            self._endpoint.flush()

    async def room(self) -> None:
        """Wait until there is room for more."""
        endpoint = self._endpoint
        if endpoint is None or endpoint.backlog <= _BACKLOG_MAX:
            return
        endpoint.flush()
        if endpoint.backlog:
            self._has_room.clear()
            await self._has_room.wait()

    def forget(self, number: int) -> None:
        """The number is free again."""
        self._letters.pop(number, None)

    # enqueue

    def _hear(self, kind: bytes, body: bytes, _fds: Descriptors) -> None:
        if kind == frames.HELLO:
            frames.parse_hello(body)
            return
        if kind != injection.RESULT:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from enqueue")
        number, code, qp = injection.parse_result(body)
        letter = self._letters.get(number)
        if letter is not None:
            letter.end(Queued(code=code, qp=qp))

    def _lost(self) -> None:
        # What was committed may be in the queue: its client tries again, at worst
        # it comes twice.
        self._has_room.set()
        letters, self._letters = self._letters, {}
        for letter in letters.values():
            letter.end(Queued(code=QueueExit.CONNECTION_LOST))
