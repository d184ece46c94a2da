"""One SMTP connection under asyncio: replies in, writes out, deadlines.

A Session drives core.smtpc.Client over a transport, and from STARTTLS on over the
TLS that takes its place (tlsclient). A peer gets `timeout_remote`
seconds for each whole reply, however it trickles, and for taking each piece of
the content, for the content in all as long as RATE_MIN allows, and HANDSHAKE_S for
the handshake.
Must not do: choose hosts (smtpdial) or keep idle sessions (smtppool).
Source: qmail-remote.c; RFC 5321 4.5.3.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from qsend.core.errors import Bug, QsendError, RemoteProtocolError, TempFail
from qsend.core.model import Letter
from qsend.core.smtpc import Client
from qsend.core.smtptable import State
from qsend.core.smtptypes import (
    Action,
    Answer,
    Close,
    Done,
    Envelope,
    Failed,
    Outcome,
    Ready,
    Secure,
    Send,
    SendContent,
    SendDot,
)
from qsend.formats.smtp import END, ReplyReader, render_commands
from qsend.sysio.smtpcontent import Content
from qsend.sysio.tls import TlsBroken, reason_of
from qsend.sysio.tlsclient import Peer, TlsClient
from qsend.sysio.tlslayer import TlsLayer

RATE_MIN = 1000
"""Bytes a second below which the sending of a content is given up; the slowest
modem was three times as fast."""
HANDSHAKE_S = 60.0
"""Longest TLS handshake, if timeoutremote is not shorter; a real one takes two or
three round trips."""
QUIT_S = 5.0
"""How long a peer may take to answer QUIT; nothing depends on it."""
SWEEP_S = 0.25
"""How often deadlines are looked at: cheaper than a timer for every command."""
BURST = 8
"""Chunks of content written before other sessions get a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What new sessions go by: the name said in EHLO, seconds, and TLS."""

    helo: bytes
    timeout_connect: float
    timeout_remote: float
    tls: TlsClient


class SessionFailed(QsendError):
    """No session came up; `answer` is the report.

    `is_busy`: a host said 421, it takes no more sessions just now. `is_insecure`:
    TLS could not be made.
    """

    def __init__(
        self, answer: Answer, *, is_busy: bool = False, is_insecure: bool = False
    ) -> None:
        super().__init__(answer.text.decode("ascii", "replace"))
        self.answer = answer
        self.is_busy = is_busy
        self.is_insecure = is_insecure


class Sweeper:
    """Looks at the deadlines of all open sessions, SWEEP_S apart."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._sessions: set[Session] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, session: Session) -> None:
        """Watch a session."""
        self._sessions.add(session)
        if self._timer is None:
            self._timer = self.loop.call_later(SWEEP_S, self._sweep)

    def discard(self, session: Session) -> None:
        """Stop watching it."""
        self._sessions.discard(session)

    def close_all(self) -> None:
        """End every session: an idle one with QUIT, the others at once.

        The loop must run once more for the QUITs to be sent.
        """
        for session in tuple(self._sessions):
            if session.state is State.IDLE:
                session.leave_now()
            else:
                session.abort()

    def _sweep(self) -> None:
        self._timer = None
        now_mono = self.loop.time()
        late = [s for s in self._sessions if s.deadline_mono <= now_mono]
        for session in late:
            session.expire()
        if self._sessions:
            self._timer = self.loop.call_later(SWEEP_S, self._sweep)


OnDone = Callable[["Session", Outcome], None]


class Session(asyncio.Protocol):
    """One connection; made by smtpdial, awaited with `until_ready`.

    `served` counts the transactions begun. `on_idle` is called whenever the
    session can serve another, `on_closed` once when it never will again.
    """

    def __init__(self, peer: Peer, settings: Settings, sweeper: Sweeper) -> None:
        self.settings = settings
        self.served = 0
        self.born_mono = sweeper.loop.time()
        self.deadline_mono = self.born_mono + settings.timeout_remote
        self.on_idle: Callable[[Session], None] | None = None
        self.on_closed: Callable[[Session], None] | None = None
        self._timeout_s = settings.timeout_remote
        self._sweeper = sweeper
        self._loop = sweeper.loop
        self._peer = peer
        self._client = Client(peer.host.address.encode(), settings.helo, peer.demand)
        self._reader = ReplyReader()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | TlsLayer | None = None
        self._content: Content | None = None
        self._chunks: Iterator[tuple[bytes, bool]] | None = None
        self._content_end_mono = 0.0
        self._is_paused = False
        self._fault: Answer | None = None
        self._on_done: OnDone | None = None

    @property
    def state(self) -> State:
        """What the session waits for."""
        return self._client.state

    @property
    def address(self) -> str:
        """The host's."""
        return self._peer.host.address

    async def until_ready(self) -> None:
        """Wait for greeting and name. Raises: SessionFailed."""
        await self._opened

    def begin(self, envelope: Envelope, content: Content, on_done: OnDone) -> None:
        """Run a transaction; `content` stays the caller's to close.

        `on_done` is called once. Raises: LocalProtocolError unless idle.
        """
        actions = self._client.begin(envelope)
        self.served += 1
        self._content, self._on_done, self._fault = content, on_done, None
        self._apply(actions)

    async def run(self, envelope: Envelope, content: Content) -> Outcome:
        """As `begin`, for one who waits."""
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def done(_session: Session, outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        self.begin(envelope, content, done)
        return await future

    def leave(self) -> None:
        """Say QUIT, wait QUIT_S at most for the answer, and close; when idle."""
        self._apply(self._client.leave())
        self.deadline_mono = self._loop.time() + QUIT_S

    def leave_now(self) -> None:
        """Say QUIT when idle, and close without waiting for the answer."""
        if self._client.state is State.IDLE:
            self.leave()
        self._apply(self._client.lost())

    def abort(self) -> None:
        """Drop the connection; a transaction under way ends as "died"."""
        self._apply(self._client.lost())
        if self._transport is not None:
            self._transport.abort()

    def expire(self) -> None:
        """The deadline is past."""
        if self._client.state is State.IDLE:
            self.leave()
        elif self._client.state is State.CLOSED:
            self.abort()
        elif self._client.state is State.TLS:
            self._lose_tls(b"timed out")
        else:
            self._apply(self._client.lost())

    def rest_until(self, deadline_mono: float) -> None:
        """Stay idle until then at most."""
        self.deadline_mono = deadline_mono

    # What the transport calls.

    def connection_made(
        self,
        transport: asyncio.Transport,  # type: ignore[override] # TCP gives no other
    ) -> None:
        """The connection stands; the peer speaks first."""
        self._transport = transport
        self._sweeper.add(self)

    def data_received(self, data: bytes) -> None:
        """Take the peer's bytes."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.take()) is not None:
                self.deadline_mono = self._loop.time() + self._timeout_s
                self._apply(self._client.receive(reply))
        except RemoteProtocolError as exc:
            self._apply(self._client.garbage(str(exc).encode()))

    def pause_writing(self) -> None:
        """The peer takes no more for now."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The peer takes more."""
        self._is_paused = False
        if self._chunks is not None:
            self._extend_content_deadline()
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, whoever ended it."""
        self._sweeper.discard(self)
        self._apply(self._client.lost())
        self._transport = None
        if self.on_closed is not None:
            self.on_closed(self)

    # What the client wants done.

    def _apply(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self._write(render_commands(action.commands))
            elif isinstance(action, SendContent):
                self._send_content()
            elif isinstance(action, Done):
                self._finish(action.outcome)
            elif isinstance(action, Ready):
                self._be_idle()
            else:
                self._apply_rare(action)

    def _apply_rare(self, action: SendDot | Failed | Close | Secure) -> None:
        if isinstance(action, SendDot):
            self._write(END)
        elif isinstance(action, Failed):
            self._fail(action)
        elif isinstance(action, Close):
            self._close()
        else:
            self._secure()

    def _secure(self) -> None:
        below = self._transport
        if below is None or isinstance(below, TlsLayer):
            raise Bug("TLS inside TLS, or on no connection")
        if self._reader.is_ahead:
            # Somebody in between may have added it, to be taken for what the
            # server says under TLS.
            self._apply(self._client.garbage(b"words in clear after STARTTLS"))
            return
        self.deadline_mono = self._loop.time() + min(HANDSHAKE_S, self._timeout_s)
        try:
            self._transport = self.settings.tls.secure(
                self._peer,
                below,
                self,
                on_up=lambda session: self._apply(self._client.secured(session)),
                on_failed=self._lose_tls,
            )
        except TlsBroken as exc:
            self._lose_tls(exc.reason.encode("ascii", "replace"))
        except OSError as exc:
            self._lose_tls(reason_of(exc).encode("ascii", "replace"))

    def _lose_tls(self, reason: bytes) -> None:
        self._apply(self._client.unsecured(reason))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
        self.deadline_mono = self._loop.time() + self._timeout_s

    def _fail(self, failed: Failed) -> None:
        if not self._opened.done():  # who waited may have been cancelled
            self._opened.set_exception(
                SessionFailed(
                    failed.answer,
                    is_busy=failed.is_busy,
                    is_insecure=failed.is_insecure,
                )
            )

    def _be_idle(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)
        if self.on_idle is not None:
            self.on_idle(self)

    def _finish(self, outcome: Outcome) -> None:
        self._chunks = self._content = None
        if self._fault is not None:
            outcome = replace(outcome, verdict=self._fault)
        on_done, self._on_done = self._on_done, None
        if on_done is None:
            raise Bug("an outcome without a transaction")
        on_done(self, outcome)

    def _close(self) -> None:
        # What is written still goes out (QUIT), but a peer that stopped reading
        # keeps us no longer than the deadline.
        self.deadline_mono = self._loop.time() + QUIT_S
        if self._transport is not None:
            self._transport.close()

    # The content.

    def _send_content(self) -> None:
        content = self._content
        if content is None:
            raise Bug("no content")
        if content.whole is not None:
            self._write(content.whole)
            self._apply(self._client.sent())
            return
        self._chunks = content.chunks()
        longest_s = self._timeout_s + content.size / RATE_MIN
        self._content_end_mono = self._loop.time() + longest_s
        self._pump()

    def _extend_content_deadline(self) -> None:
        self.deadline_mono = min(
            self._loop.time() + self._timeout_s, self._content_end_mono
        )

    def _pump(self) -> None:
        """Write chunks until the peer takes no more; resume_writing goes on."""
        for _ in range(BURST):
            if self._chunks is None or self._is_paused:
                return
            try:
                chunk, is_last = next(self._chunks)
            except TempFail as exc:
                self._spoil(exc)
                return
            self._write(chunk)
            if is_last:
                self._chunks = None
                # Now, not in another turn: the peer may have answered by then.
                self._apply(self._client.sent())
                return
            self._extend_content_deadline()
        self._loop.call_soon(self._pump)

    def _spoil(self, exc: TempFail) -> None:
        """The message cannot be read to its end: it must not end with a dot."""
        text = str(exc).encode("ascii", "replace") + b"\n"
        self._fault = Answer(letter=Letter.DEFERRAL, text=text)
        self._apply(self._client.lost())
