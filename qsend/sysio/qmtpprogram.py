"""Serving one QMTP or QMQP client on descriptors 0 and 1.

What is said is formats/qmtp.py's. Who the client is and what takes its messages is in
the environment (TCPREMOTEIP ..., QMAILQUEUE).
Source: qmail-qmtpd.c, qmail-qmqpd.c.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import assert_never

from qsend.core.errors import RemoteProtocolError, TempFail
from qsend.core.model import Letter
from qsend.core.relay import Refused, Taken, Unlisted
from qsend.formats.netstring import NetstringTooLong
from qsend.formats.qmtp import (
    Abandon,
    Begin,
    Bye,
    Commit,
    Dialogue,
    Envelope,
    Judge,
    Message,
    Say,
    Step,
    accepted,
    failed,
)
from qsend.formats.queuetexts import explain
from qsend.formats.smtpreceived import render_received_of
from qsend.sysio import clock
from qsend.sysio.clientline import ClientGone, ClientLine
from qsend.sysio.mailqueue import open_queue
from qsend.sysio.queueclient import QueueClient, QueueStopped
from qsend.sysio.queueprogram import QueueProgram

SESSION_S = 3600
"""No run lasts longer (qmail-qmtpd.c, qmail-qmqpd.c)."""
EXIT_PROTOCOL = 100
EXIT_RESOURCES = 111


def serve(
    home: str, talk: Dialogue, settle: Callable[[Unlisted], Taken | Refused]
) -> int:
    """Serve the client to its end; the exit code of the program."""
    signal.signal(signal.SIGALRM, lambda _signum, _frame: os._exit(EXIT_RESOURCES))
    signal.alarm(SESSION_S)
    line = ClientLine(0, 1, SESSION_S)
    session = _Session(home, line, talk, settle)
    try:
        session.run()
    except ClientGone:
        pass
    except NetstringTooLong:
        return EXIT_RESOURCES
    except RemoteProtocolError:
        return EXIT_PROTOCOL
    finally:
        session.abandon()
        _leave(line)
    return 0


def _leave(line: ClientLine) -> None:
    """What was answered is also said to a client that then broke the rules."""
    try:
        line.flush()
    except ClientGone:
        pass
    finally:
        line.close()


class _Session:
    def __init__(
        self,
        home: str,
        line: ClientLine,
        talk: Dialogue,
        settle: Callable[[Unlisted], Taken | Refused],
    ) -> None:
        self._home = home
        self._line = line
        self._talk = talk
        self._settle = settle
        self._message: _Message | None = None

    def run(self) -> None:
        """Until there is no more to be done. Raises: ClientGone, RemoteProtocolError"""
        while not isinstance(step := self._talk.next(), Bye):
            if step is None:
                self._talk.feed(self._line.read())
            else:
                self._do(step)

    def abandon(self) -> None:
        """Forget the message that is under way."""
        message, self._message = self._message, None
        if message is not None:
            message.close()

    def _do(self, step: Step) -> None:
        match step:
            case Begin():
                self._message = _Message(self._home, self._talk.PROTOCOL)
            case Message() | Envelope():
                assert self._message is not None
                self._message.give(step)
            case Judge(unlisted=unlisted):
                self._talk.judged(self._settle(unlisted))
            case Commit():
                assert self._message is not None
                self._talk.queued(self._message.commit())
                self.abandon()
            case Abandon():
                self.abandon()
            case Say(text=text):
                self._line.write(text)
            case Bye():
                pass
            case _:
                assert_never(step)


class _Message:
    """One on its way; what goes wrong with it is told at its end."""

    def __init__(self, home: str, protocol: bytes) -> None:
        self._failure = b""
        self._queue: QueueClient | QueueProgram | None = None
        received = render_received_of(
            os.environb, helo=None, protocol=protocol, now=clock.now()
        )
        try:
            self._queue = open_queue(home, os.environ)
        except TempFail as exc:
            self._failure = failed(Letter.DEFERRAL, f"{exc} (#4.3.0)")
        self.give(Message(data=received))

    def give(self, step: Message | Envelope) -> None:
        """Hand bytes on, as long as they are wanted."""
        if self._queue is None:
            return
        try:
            if isinstance(step, Message):
                self._queue.message(step.data)
            else:
                self._queue.envelope(step.data)
        except QueueStopped as exc:
            self._fail(exc)

    def commit(self) -> bytes:
        """What became of it."""
        if self._queue is not None:
            try:
                return accepted(clock.now(), self._queue.commit())
            except QueueStopped as exc:
                self._fail(exc)
        return self._failure

    def close(self) -> None:
        """Without a commit nothing is queued."""
        if self._queue is not None:
            self._queue.close()

    def _fail(self, exc: QueueStopped) -> None:
        self._failure = failed(*explain(exc.code, exc.custom))
        self.close()
        self._queue = None
