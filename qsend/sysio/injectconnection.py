"""One client of the injection service and its streams by number.

Frames in, results out; what it may do is the server's to say.
"""

from __future__ import annotations

import socket
from typing import Protocol

from qsend.core.errors import RemoteProtocolError
from qsend.core.quota import Share
from qsend.formats import injection
from qsend.formats.queueexit import QueueExit
from qsend.sysio import clock
from qsend.sysio.callers import Caller
from qsend.sysio.endpoint import Descriptors, Endpoint, Poller
from qsend.sysio.injectstream import INCOMPLETE, Intake, State, Stream

STREAMS_MAX = 10000
"""Streams open on one connection, answered ones included; beyond is a flood."""

_BACKLOG_MAX = 16
"""Packets of answers, 64 KiB each, that a client may leave unread."""
_FAILURES_MAX = 100
"""Messages that an ordinary client may start in vain on one connection: each
costs a file, and nothing limits how fast they come."""


class Server(Protocol):
    """What a connection needs of its server."""

    @property
    def intake(self) -> Intake:
        """What all streams share."""

    def poller(self, caller: Caller) -> Poller:
        """Where a client is served."""

    def next_serial(self) -> int:
        """The qp of a message that cannot have its client's pid."""

    def share(self, caller: Caller) -> Share:
        """What a new stream counts against."""

    def begun(self, stream: Stream, *, is_first: bool) -> None:
        """A stream exists, of a connection the first or not: start its clock."""

    def completed(self, stream: Stream) -> None:
        """A stream is about to be committed: the client's part is over."""

    def answered(self, stream: Stream) -> None:
        """A stream is over, or failed early."""

    def forgotten(self, stream: Stream) -> None:
        """A stream will never be answered."""

    def settled(self, connection: Connection) -> None:
        """A stream of a connection is over."""

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""

    def press(self, connection: Connection, *, is_pressed: bool) -> None:
        """A client says that it has too much to take up, or no more.

        Raises: RemoteProtocolError when it is not send.
        """

    def hand_over(self, connection: Connection) -> None:
        """A client asks for the listening socket.

        Raises: RemoteProtocolError when it may not have it.
        """


class Connection:
    """One client and its streams by number. Made by InjectServer.adopt."""

    def __init__(self, server: Server, sock: socket.socket, caller: Caller):
        self.caller = caller
        self.last_mono = clock.mono()
        self.has_begun = False
        """Whether it has had a message."""
        self._server = server
        self._streams: dict[int, Stream] = {}
        self._has_used_pid = caller.pid == 0
        self._failures = 0
        self._endpoint = Endpoint(
            server.poller(caller),
            sock,
            self._frame,
            self._closed,
            max_packets=16 if caller.is_trusted else 1,
        )

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._endpoint.closed

    @property
    def is_idle(self) -> bool:
        """Whether no message is under way."""
        return not self._streams

    @property
    def is_syncing(self) -> bool:
        """Whether a complete message waits for its answer."""
        return any(one.state is State.SYNCING for one in self._streams.values())

    @property
    def backlog(self) -> int:
        """Packets that the client has not yet taken."""
        return self._endpoint.backlog

    def send(self, data: bytes, fd: int | None = None) -> None:
        """Queue one frame for the client."""
        self._endpoint.send(data, fd)
        if self._endpoint.backlog > _BACKLOG_MAX:
            self._endpoint.close("reads no answers")

    def close(self) -> None:
        """Flush what the client takes at once, then close."""
        self._endpoint.flush()
        self._endpoint.close("closed here")

    def refuse(self) -> None:
        """Answer BUSY for the whole connection, and close it."""
        number = injection.WHOLE_CONNECTION
        self._endpoint.send(injection.render_result(number, QueueExit.BUSY, 0))
        self.close()

    def abort_incomplete(self) -> None:
        """Forget every message that has not been committed."""
        for number, stream in list(self._streams.items()):
            if stream.state is not State.SYNCING:
                self._forget(number, stream)
                stream.abort()

    def _frame(self, kind: bytes, body: bytes, _fds: Descriptors) -> None:
        self.last_mono = clock.mono()
        if kind == injection.HANDOVER:
            self._server.hand_over(self)
            return
        if kind == injection.PRESSURE:
            self._server.press(self, is_pressed=injection.parse_pressure(body))
            return
        number, data = injection.parse_stream(body)
        if kind == injection.MESSAGE:
            self._stream(number).message(data)
        elif kind == injection.ENVELOPE:
            self._stream(number).envelope(data)
        elif kind == injection.COMMIT:
            self._commit(number)
        elif kind == injection.ABORT:
            self._abort(number)
        else:
            raise RemoteProtocolError(f"unexpected frame {kind!r}")

    def _stream(self, number: int) -> Stream:
        """The open stream of this number, or a new one."""
        stream = self._streams.get(number)
        if stream is not None:
            return stream
        if len(self._streams) >= STREAMS_MAX:
            raise RemoteProtocolError("too many streams")

        def answer(stream: Stream, code: QueueExit) -> None:
            self._answered(number, stream, code)

        qp = self.caller.pid
        if self._has_used_pid:
            qp = self._server.next_serial()
        self._has_used_pid = True
        share = self._server.share(self.caller)
        stream = Stream(self._server.intake, self.caller, qp, share, answer)
        self._streams[number] = stream
        is_first, self.has_begun = not self.has_begun, True
        self._server.begun(stream, is_first=is_first)
        return stream

    def _commit(self, number: int) -> None:
        stream = self._stream(number)
        if stream.state in INCOMPLETE:
            self._server.completed(stream)
        stream.commit()
        if stream.state is State.OVER:
            self._forget(number, stream)
            self._server.settled(self)

    def _abort(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None and stream.state is not State.SYNCING:
            self._forget(number, stream)
            stream.abort()
            self._count_failure()
            self._server.settled(self)

    def _answered(self, number: int, stream: Stream, code: QueueExit) -> None:
        if stream.state is State.OVER:
            self._forget(number, stream)
        self._server.answered(stream)
        self.send(injection.render_result(number, code, stream.qp))
        if code != QueueExit.QUEUED:
            self._count_failure()
        self._server.settled(self)

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures > _FAILURES_MAX and not self.caller.is_trusted:
            self.refuse()

    def _forget(self, number: int, stream: Stream) -> None:
        self._server.forgotten(stream)
        if self._streams.get(number) is stream:
            del self._streams[number]

    def _closed(self, _reason: str) -> None:
        self.abort_incomplete()
        self._server.closed(self)
