"""One SMTP client of a listener, on aiosmtpd's connection.

aiosmtpd has the stream and the PROXY header; what is said is core/smtpd.py's, because
messages are streamed, addresses are bytes, and pipelined commands are answered
together. One task serves the connection from its first byte to its last; nothing is
started per message. Commands that need no waiting are answered without the task.
Source: docs/adr/0007-aiosmtpd-without-its-commands.md; aiosmtpd.smtp.
"""

from __future__ import annotations

import asyncio
from typing import assert_never

from qsend.core import smtpdreplies as replies
from qsend.core.access import Access, Client
from qsend.core.errors import RemoteProtocolError
from qsend.core.loginbrake import network
from qsend.core.lookups import Login, Proof
from qsend.core.milter import Refusal
from qsend.core.milterfacts import ClientFacts
from qsend.core.mx import canonical
from qsend.core.smtpd import Dialogue
from qsend.core.smtpdsteps import (
    Abandon,
    Begin,
    Bye,
    Chunk,
    Filter,
    Finish,
    Judge,
    LogIn,
    Peer,
    Say,
    Screen,
    StartTls,
    Step,
    databytes_of,
)
from qsend.formats.listeners import Listener
from qsend.formats.loginwire import LoginOutcome
from qsend.formats.smtpdcontrols import SUBMISSION
from qsend.sysio import proxyheader
from qsend.sysio.filteredletter import tls_facts
from qsend.sysio.filters import Filters
from qsend.sysio.smtpddesk import Desk
from qsend.sysio.smtpdmessage import Message, begin_message
from qsend.sysio.smtpdstream import Ended, SmtpdStream

_HEADER_S = 10.0
"""A balancer sends its PROXY header at once."""
_INTAKE_S = 7200.0
"""While the client waits for us, for filters say, its own time limit does not run."""


class SmtpdClient(SmtpdStream):
    """One connection."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, desk: Desk, listener: Listener
    ) -> None:
        super().__init__(loop, desk.timeout_s)
        self.network = b""
        self._desk = desk
        self._listener = listener
        self._client = Client(address="0.0.0.0")
        self._access = Access(is_allowed=True)
        self._talk = Dialogue(desk.rules, Peer())
        self._filters: Filters | None = None
        self._port = 0
        self._message: Message | None = None
        self._is_told = True
        """Whether a command was complete since the time limit was set."""
        self._step: Step | None = None
        """What `answer` left to the task."""

    # What aiosmtpd calls

    def connection_lost(self, error: Exception | None) -> None:
        """Forget a message that was not complete."""
        super().connection_lost(error)
        if self._message is not None:
            self._message.letter.abort()
            self._message = None
        if self._filters is not None:
            self._filters.close()
        self._desk.leave(self)

    async def _handle_client(self) -> None:
        try:
            await self._serve()
        except (Ended, ConnectionError, RemoteProtocolError):
            pass
        except Exception as exc:  # noqa: BLE001 - the outermost frame of a session
            self._desk.note(f"session with {self._client.address} broke down: {exc!r}")
            self.out.append(b"451 4.3.0 internal trouble (#4.3.0)\r\n")
        self.hang_up()

    # The session

    async def _serve(self) -> None:
        if await self._admit():
            early = await self._secure() if self._listener.is_tls else b""
            self.out.append(self._talk.greeting)
            self._talk.feed(early)
            await self._converse()

    async def _admit(self) -> bool:
        """Whether the client may speak. Raises: Ended."""
        assert self.session is not None
        peer = self.session.peer
        host, self._port = peer[:2] if isinstance(peer, tuple) else ("0.0.0.0", 0)
        address = canonical(str(host).partition("%")[0])
        if self._desk.is_proxy(address):
            address = await self._proxied(address)
        self.network = network(address.encode())
        refusal = await self._refusal(address)
        if refusal is not None:
            if not self._listener.is_tls:
                self.out.append(refusal)
            return False
        self._filters = self._desk.filters(self._listener)
        self._talk = Dialogue(self._desk.rules, self._peer(self._access))
        return True

    async def _refusal(self, address: str) -> bytes | None:
        if not self._desk.enter(self):
            return replies.TOO_BUSY
        name = await self._desk.name(address)
        self._client = Client(address=address, host=name)
        access = self._desk.lets_in(self._client)
        if access is None:
            return replies.UNREADABLE
        self._access = access
        return None if access.is_allowed else replies.DENIED

    async def _proxied(self, balancer: str) -> str:
        """The address of a balancer's client. Raises: Ended without a header."""
        self._reset_timeout(_HEADER_S)
        try:
            client = await proxyheader.client(self._reader)
        except RemoteProtocolError as exc:
            self._desk.note(f"no PROXY header from {balancer}: {exc}")
            raise Ended from exc
        self._reset_timeout(self._desk.timeout_s)
        if client is None:
            return balancer
        address, self._port = client
        return address

    def _peer(self, access: Access) -> Peer:
        variables = access.variables
        is_submission = SUBMISSION in self._listener.words
        has_tls = self._desk.context is not None
        return Peer(
            relay_suffix=variables.get(b"RELAYCLIENT"),
            databytes=databytes_of(variables),
            is_screened=is_submission
            or not (self._desk.has_lists() or b"RBLSMTPD" in variables),
            offers_tls=has_tls and not self._listener.is_tls,
            offers_login=has_tls,
            must_log_in=is_submission,
            is_filtered=self._filters is not None,
        )

    async def _converse(self) -> None:
        talk = self._talk
        while True:
            while (step := self._next()) is not None:
                await self._do(step)
                self._is_told = True
            await self.flush()
            self._give_time()
            talk.feed(await self.hear())

    def _next(self) -> Step | None:
        step, self._step = self._step, None
        return self._talk.next() if step is None else step

    def answer(self, data: bytes) -> bool:
        """See SmtpdStream."""
        talk = self._talk
        talk.feed(data)
        while (step := talk.next()) is not None:
            if isinstance(step, Say):
                self.out.append(step.text)
            elif isinstance(step, Begin):
                self._begin(step)
            else:
                self._step = step
                return False
            self._is_told = True
        self._give_time()
        return True

    async def _do(self, step: Step) -> None:
        """Raises: Ended after the last words."""
        match step:
            case Say(text=text):
                self.out.append(text)
            case Bye(text=text):
                self.out.append(text)
                raise Ended
            case Begin() | Chunk() | Finish() | Abandon():
                await self._do_message(step)
            case Judge():
                await self._do(self._talk.judged(await self._desk.judge(step)))
            case Filter():
                await self._filter(step)
            case Screen():
                blocked = await self._desk.screen(self._client.address, self._access)
                self._talk.screened(blocked)
            case LogIn():
                await self._log_in(step)
            case StartTls(text=text):
                self.out.append(text)
                await self.flush()
                self._talk.feed(await self._secure())
            case _:
                assert_never(step)

    async def _filter(self, step: Filter) -> None:
        assert self._filters is not None
        client = ClientFacts(
            server=self._desk.me,
            address=self._client.address,
            port=self._port,
            host=self._client.host,
            helo=step.helo,
            login=self._talk.login,
            tls=tls_facts(self.tls),
        )
        self._reset_timeout(_INTAKE_S)
        refusal = await self._filters.recipient(client, step)
        text = None if refusal is None else refusal.text
        await self._do(self._talk.filtered(step, text))

    # Messages

    async def _do_message(self, step: Begin | Chunk | Finish | Abandon) -> None:
        match step:
            case Chunk(data=data):
                assert self._message is not None
                self._message.letter.write(data)
                await self._message.letter.room()
            case Begin():
                self._begin(step)
            case Finish():
                await self._finish()
            case Abandon():
                self._abandon()

    def _begin(self, step: Begin) -> None:
        self._message = begin_message(
            step,
            self._client,
            self._talk.login,
            self._desk.me,
            self._desk.intake(self._client, self._access, self._talk.login),
            self._filters,
        )
        self.out.append(replies.GO_AHEAD)

    def _abandon(self) -> None:
        message, self._message = self._message, None
        if message is not None:
            message.letter.abort()

    async def _finish(self) -> None:
        message, self._message = self._message, None
        assert message is not None
        self._reset_timeout(_INTAKE_S)
        reply = await message.finish()
        if isinstance(reply, Refusal):
            await self._do(self._talk.refused(reply.text))
        else:
            self.out.append(reply)

    # Logins

    async def _log_in(self, step: LogIn) -> None:
        given = step.credentials
        login = Login(
            proof=Proof.PASS,
            name=given.name,
            secret=given.secret,
            client=self._client.address.encode(),
        )
        match await self._desk.verify(login):
            case LoginOutcome.OPEN:
                answer = self._talk.logged_in(given.name)
            case LoginOutcome.REFUSED:
                answer = self._talk.logged_in(None, replies.LOGIN_REFUSED)
            case LoginOutcome.TOO_SOON:
                answer = Bye(text=replies.LOGIN_TOO_SOON)
            case LoginOutcome.TEMPORARY:
                answer = self._talk.logged_in(None, replies.LOGIN_TEMPORARY)
        await self._do(answer)

    # Bytes

    def _give_time(self) -> None:
        """A command has to be complete, and a piece of a message has to come, within
        the time limit."""
        if self._is_told or self._message is not None:
            self._is_told = False
            self._reset_timeout(self._desk.timeout_s)

    async def _secure(self) -> bytes:
        """Go on inside TLS; what came there already. Raises: Ended."""
        plain = await self.handshake(self._desk.context)
        self._talk.secured()
        return plain
