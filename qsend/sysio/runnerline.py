"""A listener's line to runner: messages to the programs that QMAILQUEUE names.

Used as IntakeLine is. Bytes go straight into the program's pipe, so that one that does
not read holds up its own client alone. Belongs to an asyncio loop.
Source: formats/runnerwire.py; docs/NETWORK.md.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from qsend.core.access import Client
from qsend.core.errors import RemoteProtocolError
from qsend.formats import runnerwire
from qsend.formats.queueexit import QueueExit
from qsend.formats.runnerwire import Request
from qsend.formats.todo import render_wire
from qsend.sysio.endpoint import Descriptors, Endpoint, Poller
from qsend.sysio.intakeline import Letter, Queued

START_S = 30.0
"""So long a message waits for runner; start forks it at the first one."""


class _Pipe:
    """The writing end of one; a program that reads no more takes everything."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.is_read = True
        self._fd = fd
        self._waiting = bytearray()
        self._waiter: asyncio.Future[None] | None = None

    def write(self, data: bytes) -> None:
        """Take bytes, to be written by `drain`."""
        if self.is_read:
            self._waiting += data

    async def drain(self) -> None:
        """Wait until all is in the pipe, or nobody reads it."""
        while self._waiting and self.is_read:
            try:
                del self._waiting[: os.write(self._fd, self._waiting)]
            except BlockingIOError:
                await self._room()
            except OSError:
                self.is_read = False

    def close(self) -> None:
        """Give it back; whoever waits in `drain` goes on."""
        if self._fd < 0:
            return
        if self._waiting:
            self.is_read = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
            asyncio.get_running_loop().remove_writer(self._fd)
        os.close(self._fd)
        self._fd = -1

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        fd = self._fd
        loop.add_writer(fd, _set, waiter)
        try:
            await waiter
        finally:
            if fd == self._fd:
                loop.remove_writer(fd)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class ProgramLetter:
    """One message on its way to a program; made by RunnerLine.begin."""

    def __init__(self, line: RunnerLine, number: int, message: int, envelope: int):
        """`message` and `envelope` are the writing ends of its pipes."""
        self.ended: Queued | None = None
        self._line = line
        self._number = number
        self._message = _Pipe(message)
        self._envelope = _Pipe(envelope)
        self._end: asyncio.Future[Queued] | None = None

    def write(self, data: bytes) -> None:
        """Hand on bytes of the message."""
        self._message.write(data)

    async def room(self) -> None:
        """Wait until the program has taken what was written."""
        await self._message.drain()
        await self._envelope.drain()

    def envelope(self, data: bytes) -> None:
        """Hand on bytes of the envelope in the form of qmail-queue's descriptor 1."""
        self._envelope.write(data)

    async def commit(self, sender: bytes, recips: tuple[bytes, ...]) -> Queued:
        """`envelope` with the whole of it, and `finish`.

        Raises: LocalProtocolError when an address holds a NUL.
        """
        self.envelope(render_wire(sender, recips))
        return await self.finish()

    async def finish(self) -> Queued:
        """All was given: wait for the program's end. Call it once."""
        self._end = asyncio.get_running_loop().create_future()
        if self.ended is not None:
            self._end.set_result(self.ended)
        # Before the rest is written: the program's time begins here.
        self._line.tell(runnerwire.COMMIT, self._number)
        try:
            await self._message.drain()
            self._message.close()
            await self._envelope.drain()
            self._envelope.close()
            return self._judge(await self._end)
        finally:
            self._close()
            self._line.forget(self._number)

    def abort(self) -> None:
        """Forget the message: its program sees no envelope, and so queues nothing."""
        self._close()
        if self._end is None:
            self._line.tell(runnerwire.ABORT, self._number)
            self._line.forget(self._number)

    def end(self, queued: Queued) -> None:
        """For RunnerLine."""
        if self.ended is None:
            self.ended = queued
        if self._end is not None and not self._end.done():
            self._end.set_result(self.ended)

    def _judge(self, queued: Queued) -> Queued:
        """A program that did not read all cannot have queued it (qmail.c)."""
        is_read = self._message.is_read and self._envelope.is_read
        if queued.code == QueueExit.QUEUED and not is_read:
            return Queued(code=QueueExit.READ)
        return queued

    def _close(self) -> None:
        # The envelope first, cut off: a program that reads to the end of the message
        # must not find a whole one.
        self._envelope.close()
        self._message.close()


class Intake(Protocol):
    """Where a client's messages go: enqueue, or a program."""

    def begin(self) -> Letter | ProgramLetter:
        """A new message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramIntake:
    """Those of one client whose access rule names a program."""

    line: RunnerLine
    service: str
    client: Client
    login: bytes | None = None

    def begin(self) -> ProgramLetter:
        """A new message. Raises: OSError when there is no room for its pipes."""
        return self.line.begin(self.service, self.client, self.login)


class RunnerLine:
    """The socket to runner, and the messages that are with its programs."""

    def __init__(self, poller: Poller, ask: Callable[[], None]) -> None:
        """Without a socket; `ask` has start make a runner, and `attach` comes then."""
        self._poller = poller
        self._ask = ask
        self._endpoint: Endpoint | None = None
        self._letters: dict[int, ProgramLetter] = {}
        self._unsent: list[tuple[bytes, tuple[int, ...]]] = []
        self._patience: asyncio.TimerHandle | None = None
        self._next_number = 0

    def attach(self, sock: socket.socket) -> None:
        """Use this socket from now on."""
        if self._endpoint is not None:
            self._endpoint.close("replaced")
        self._endpoint = Endpoint(
            self._poller, sock, self._hear, lambda _reason: self._lost()
        )
        for part, fds in self._take_unsent():
            self._endpoint.send(part, *fds)

    def intake(
        self, service: str, client: Client, login: bytes | None = None
    ) -> ProgramIntake:
        """For the messages of a client of `service`, one of tcprules.SERVICES."""
        return ProgramIntake(line=self, service=service, client=client, login=login)

    def begin(self, service: str, client: Client, login: bytes | None) -> ProgramLetter:
        """A new message. Raises: OSError when there is no room for its pipes."""
        number = self._next_number
        self._next_number = (number + 1) % 2**32
        message_in, message_out = os.pipe2(os.O_CLOEXEC)
        try:
            envelope_in, envelope_out = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(message_in)
            os.close(message_out)
            raise
        letter = ProgramLetter(self, number, message_out, envelope_out)
        self._letters[number] = letter
        request = Request(number=number, service=service, client=client, login=login)
        self._send(runnerwire.render_request(request), message_in, envelope_in)
        return letter

    def close(self) -> None:
        """Give back what waits for runner."""
        self._give_up()

    # For letters

    def tell(self, kind: bytes, number: int) -> None:
        """Send a COMMIT or ABORT frame."""
        self._send(runnerwire.render_word(kind, number))

    def forget(self, number: int) -> None:
        """Nobody waits for it any more."""
        self._letters.pop(number, None)

    # runner

    def _send(self, part: bytes, *fds: int) -> None:
        if self._endpoint is not None:
            self._endpoint.send(part, *fds)
            return
        self._unsent.append((part, fds))
        if self._patience is None:
            self._ask()
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(START_S, self._give_up)

    def _take_unsent(self) -> list[tuple[bytes, tuple[int, ...]]]:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        unsent, self._unsent = self._unsent, []
        return unsent

    def _give_up(self) -> None:
        for _part, fds in self._take_unsent():
            for fd in fds:
                os.close(fd)
        self._end_all(QueueExit.BUSY)

    def _hear(self, kind: bytes, body: bytes, _fds: Descriptors) -> None:
        if kind != runnerwire.RESULT:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from runner")
        result = runnerwire.parse_result(body)
        letter = self._letters.get(result.number)
        if letter is not None:
            letter.end(Queued(code=result.code, qp=result.pid, custom=result.custom))

    def _lost(self) -> None:
        # A program may go on, and queue what it has: its client tries again, at worst
        # the message comes twice.
        self._endpoint = None
        self._end_all(QueueExit.CONNECTION_LOST)

    def _end_all(self, code: QueueExit) -> None:
        letters, self._letters = self._letters, {}
        for letter in letters.values():
            letter.end(Queued(code=code))
