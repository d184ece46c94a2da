"""One POP3 client in the process that listens: TLS, the login, then bytes both ways.

Before the login the client speaks with core/pop3auth.py; afterwards with a process
that is its mailbox, and this one only carries bytes and wraps them in TLS. Belongs to
an asyncio loop.
Source: RFC 1939, RFC 2595; docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
from enum import Enum, auto
from typing import Protocol, assert_never

from qsend.core import pop3auth
from qsend.core.errors import RemoteProtocolError
from qsend.core.loginbrake import network
from qsend.core.lookups import Login
from qsend.core.pop3auth import Authorization, Bye, Say, StartTls, Try
from qsend.core.pop3lines import Lines
from qsend.formats.loginwire import LoginOutcome
from qsend.sysio import clock
from qsend.sysio.popstream import PopStream
from qsend.sysio.tls import TlsBytes

AUTHORIZATION_S = 120.0
"""Time for handshake and login, the waiting for an outcome included."""
FAILURES_MAX = 3
"""Refused logins of one connection."""
_LINGER_S = 30.0
"""How long the last words to a client may take."""


class Desk(Protocol):
    """What a client needs of the process."""

    me: bytes
    timeout_s: float
    context: ssl.SSLContext | None
    allows_plain: bool

    def lets_in(self, client: PopClient) -> bool:
        """Whether the access rules do."""

    def enter(self, client: PopClient) -> bool:
        """Whether there is room for one more."""

    def leave(self, client: PopClient) -> None:
        """The client has gone."""

    def login(self, client: PopClient, login: Login) -> None:
        """Have a login judged; `client.decided` is called, unless it leaves first."""


class _State(Enum):
    TALKING = auto()
    """Before the login; lines are taken."""
    WAITING = auto()
    """A login is judged; lines wait."""
    CARRYING = auto()
    """A session serves."""
    CLOSING = auto()


class PopClient(asyncio.Protocol):
    """One connection from its first byte to its last."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, desk: Desk, *, is_tls: bool
    ) -> None:
        self.address = ""
        self.network = b""
        self._loop = loop
        self._desk = desk
        self._is_tls = is_tls
        self._tls: TlsBytes | None = None
        self._state = _State.TALKING
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_mono = 0.0
        self._lines = Lines()
        self._failures = 0
        self._challenge = b""
        self._authorization = Authorization(challenge=b"")
        self._session: PopStream | None = None
        self._is_eof = False

    # The connection

    def connection_made(
        self,
        transport: asyncio.Transport,  # type: ignore[override] # TCP gives no other
    ) -> None:
        """Greet, or begin with TLS."""
        self._transport = transport
        self.address = str((transport.get_extra_info("peername") or ("unknown",))[0])
        self.network = network(self.address.encode())
        if not self._desk.lets_in(self):
            self._state = _State.CLOSING
            transport.close()
            return
        if not self._desk.enter(self):
            if not self._is_tls:
                transport.write(pop3auth.TOO_MANY)
            self._state = _State.CLOSING
            transport.close()
            return
        self._timer = self._loop.call_later(AUTHORIZATION_S, transport.abort)
        self._challenge = b"<%d.%d.%b@%b>" % (
            os.getpid(), clock.now(), secrets.token_hex(8).encode(), self._desk.me,
        )  # fmt: skip
        self._authorization = Authorization(
            challenge=self._challenge,
            offers_tls=self._desk.context is not None and not self._is_tls,
            needs_tls=not (self._desk.allows_plain or self._is_tls),
        )
        if not self._is_tls:
            self._say(self._authorization.greeting())
        elif self._desk.context is None:
            self._hang_up()
        else:
            self._tls = TlsBytes(self._desk.context)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is changed for a client that has not said QUIT."""
        self._state = _State.CLOSING
        if self._timer is not None:
            self._timer.cancel()
        if self._session is not None:
            self._session.close()
        self._desk.leave(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._tls is None:
            self._take(data)
            return
        greets = not self._tls.is_open and self._is_tls
        try:
            data = self._tls.feed(data)
        except RemoteProtocolError:
            self._write(self._tls.output())
            self._hang_up()
            return
        self._write(self._tls.output())
        if greets and self._tls.is_open:
            self._say(self._authorization.greeting())
        if data:
            self._take(data)
        if self._tls.is_ended:
            self.eof_received()

    def eof_received(self) -> bool:
        """No more commands; a session may still have answers."""
        self._is_eof = True
        if self._session is not None and self._state is _State.CARRYING:
            self._session.end()
        elif self._state is _State.TALKING:
            self._hang_up()
        return True

    def abort(self) -> None:
        """Cut the client off."""
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """The client reads slowly: so does its session."""
        if self._session is not None:
            self._session.set_reading(False)

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._session is not None:
            self._session.set_reading(True)

    # Before the login

    def _take(self, data: bytes) -> None:
        self._heard_mono = clock.mono()
        if self._state is _State.CARRYING and self._session is not None:
            self._session.write(data)
        elif self._state is not _State.CLOSING:
            self._lines.feed(data)
            self._obey()

    def _obey(self) -> None:
        """Answer the lines that are there, up to one that has to wait."""
        while self._state is _State.TALKING:
            try:
                command = self._lines.next()
            except RemoteProtocolError:
                self._say(pop3auth.TOO_LONG)
                self._hang_up()
                return
            if command is None:
                return
            match self._authorization.take(command):
                case Say(text=text):
                    self._say(text)
                case Bye(text=text):
                    self._say(text)
                    self._hang_up()
                case StartTls(text=text):
                    self._start_tls(text)
                case Try() as attempt:
                    self._try(attempt)
                case _ as step:
                    assert_never(step)

    def _start_tls(self, text: bytes) -> None:
        # What came with the line was sent in the clear: it never counts as said.
        self._lines.take_rest()
        context = self._desk.context
        if context is None:
            self._hang_up()  # control/servercert.pem has gone since the greeting
            return
        self._say(text)
        self._authorization.secured()
        self._tls = TlsBytes(context)

    def _try(self, attempt: Try) -> None:
        self._state = _State.WAITING
        # More than one buffer of lines must not pile up.
        self.set_reading(False)
        login = Login(
            proof=attempt.proof,
            name=attempt.name,
            secret=attempt.secret,
            challenge=self._challenge,
            client=self.address.encode(),
        )
        self._desk.login(self, login)

    def decided(self, outcome: LoginOutcome, fd: int | None) -> None:
        """The login came to this; `fd` is the session's stream, to be owned."""
        if self._state is not _State.WAITING or self._transport is None:
            if fd is not None:
                os.close(fd)
            return
        match outcome:
            case LoginOutcome.OPEN:
                assert fd is not None
                self._carry(fd)
                return
            case LoginOutcome.REFUSED:
                self._failures += 1
                self._say(pop3auth.REFUSED)
            case LoginOutcome.TEMPORARY:
                self._say(pop3auth.TEMPORARY)
            case LoginOutcome.TOO_SOON:
                self._failures = FAILURES_MAX
                self._say(pop3auth.TOO_SOON)
        if self._failures >= FAILURES_MAX:
            self._hang_up()
            return
        self._state = _State.TALKING
        self.set_reading(True)
        self._obey()
        if self._is_eof and self._state is _State.TALKING:
            self._hang_up()

    # After the login

    def _carry(self, fd: int) -> None:
        self._state = _State.CARRYING
        self._heard_mono = clock.mono()
        self._session = PopStream(self._loop, fd, self)
        if rest := self._lines.take_rest():
            self._session.write(rest)
        if self._timer is not None:
            self._timer.cancel()
        self._watch()
        self.set_reading(True)
        if self._is_eof:
            self._session.end()

    def _watch(self) -> None:
        """Leave a client that is silent, or takes nothing, for too long."""
        assert self._transport is not None
        left_s = self._heard_mono + self._desk.timeout_s - clock.mono()
        if left_s <= 0:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(left_s, self._watch)

    def answered(self, data: bytes) -> None:
        """Bytes of the session."""
        self._heard_mono = clock.mono()
        if self._state is _State.CARRYING:
            self._say(data)

    def session_ended(self) -> None:
        """The session has said all it has to say."""
        if self._state is _State.CARRYING:
            self._hang_up()

    def set_reading(self, wanted: bool) -> None:
        """Whether the client is heard; not while others are slower than it."""
        if self._transport is None or self._transport.is_closing():
            return
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    # Writing

    def _say(self, text: bytes) -> None:
        if self._tls is None:
            self._write(text)
        else:
            self._tls.send(text)
            self._write(self._tls.output())

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _hang_up(self) -> None:
        if self._state is _State.CLOSING or self._transport is None:
            return
        self._state = _State.CLOSING
        if self._tls is not None and self._tls.is_open:
            self._tls.close()
            self._write(self._tls.output())
        if self._timer is not None:
            self._timer.cancel()
        # A client that does not read must not keep the connection.
        self._timer = self._loop.call_later(_LINGER_S, self._transport.abort)
        self._transport.close()
