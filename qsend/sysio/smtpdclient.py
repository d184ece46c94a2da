"""One SMTP client of a listener, on aiosmtpd's connection.

aiosmtpd has the stream, its back-pressure, the time limit and the PROXY header; what
is said is core/smtpd.py's, because messages are streamed, addresses are bytes, and
pipelined commands are answered together. One task serves the connection from its
first byte to its last; nothing is started per message.
Source: docs/adr/0007-aiosmtpd-without-its-commands.md; aiosmtpd.smtp.
"""

from __future__ import annotations

import asyncio
from typing import assert_never

from aiosmtpd.proxy_protocol import get_proxy
from aiosmtpd.smtp import SMTP

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
from qsend.sysio.filteredletter import tls_facts
from qsend.sysio.filters import Filters
from qsend.sysio.smtpddesk import Desk
from qsend.sysio.smtpdmessage import Message, begin_message
from qsend.sysio.tls import TlsBytes

READ_MAX = 65536
_HEADER_S = 10.0
"""A balancer sends its PROXY header at once."""
_HANDSHAKE_S = 60.0
_LINGER_S = 30.0
"""How long the last words to a client may take."""
_INTAKE_S = 7200.0
"""While the client waits for us, for filters say, its own time limit does not run."""
_NO_HANDLER = object()


class _Ended(Exception):
    """The client has left, or is to leave."""


class SmtpdClient(SMTP):
    """One connection."""

    line_length_limit = READ_MAX  # of the stream: the dialogue has its own limits

    def __init__(
        self, loop: asyncio.AbstractEventLoop, desk: Desk, listener: Listener
    ) -> None:
        super().__init__(
            _NO_HANDLER,
            hostname="localhost",  # or it is looked up, for each connection
            timeout=desk.timeout_s,
            loop=loop,
        )
        self.network = b""
        self._desk = desk
        self._listener = listener
        self._client = Client(address="0.0.0.0")
        self._access = Access(is_allowed=True)
        self._talk = Dialogue(desk.rules, Peer())
        self._tls: TlsBytes | None = None
        self._filters: Filters | None = None
        self._port = 0
        self._out: list[bytes] = []
        self._message: Message | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._is_told = True
        """Whether a command was complete since the time limit was set."""

    # What aiosmtpd calls

    def eof_received(self) -> bool:
        """No more commands; what was said is still done, and answered."""
        self._reader.feed_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Forget a message that was not complete."""
        super().connection_lost(error)
        if self._linger is not None:
            self._linger.cancel()
        if self._message is not None:
            self._message.letter.abort()
            self._message = None
        if self._filters is not None:
            self._filters.close()
        self._desk.leave(self)

    def _timeout_cb(self) -> None:
        """The client was silent for too long."""
        self._out.append(replies.TIMEOUT)
        self._hang_up()

    async def _handle_client(self) -> None:
        try:
            await self._serve()
        except (_Ended, ConnectionError, RemoteProtocolError):
            pass
        except Exception as exc:  # noqa: BLE001 - the outermost frame of a session
            self._desk.note(f"session with {self._client.address} broke down: {exc!r}")
            self._out.append(b"451 4.3.0 internal trouble (#4.3.0)\r\n")
        self._hang_up()

    # The session

    async def _serve(self) -> None:
        if await self._admit():
            early = await self._handshake() if self._listener.is_tls else b""
            self._out.append(self._talk.greeting)
            self._talk.feed(early)
            await self._converse()

    async def _admit(self) -> bool:
        """Whether the client may speak. Raises: _Ended."""
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
                self._out.append(refusal)
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
        """The address of a balancer's client. Raises: _Ended without a header."""
        self._reset_timeout(_HEADER_S)
        header = await get_proxy(self._reader)
        self._reset_timeout(self._desk.timeout_s)
        if not header.valid:
            self._desk.note(f"no PROXY header from {balancer}: {header.error}")
            raise _Ended
        if header.src_addr is None:
            return balancer  # it looks whether we are well
        self._port = int(header.src_port or 0)
        return canonical(str(header.src_addr))

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
            while (step := talk.next()) is not None:
                if isinstance(step, Say):
                    self._out.append(step.text)
                else:
                    await self._do(step)
                self._is_told = True
            await self._flush()
            talk.feed(await self._read())

    async def _do(self, step: Step) -> None:
        """Raises: _Ended after the last words."""
        match step:
            case Say(text=text):
                self._out.append(text)
            case Bye(text=text):
                self._out.append(text)
                raise _Ended
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
                self._out.append(text)
                await self._flush()
                self._talk.feed(await self._handshake())
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
            tls=tls_facts(self._tls),
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
            self._desk.intake,
            self._filters,
        )
        self._out.append(replies.GO_AHEAD)

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
            self._out.append(reply)

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

    async def _read(self) -> bytes:
        """What the client says next. Raises: _Ended at its end.

        A command has to be complete, and a piece of a message has to come, within
        the time limit.
        """
        if self._is_told or self._message is not None:
            self._is_told = False
            self._reset_timeout(self._desk.timeout_s)
        while True:
            data = await self._reader.read(READ_MAX)
            if not data:
                raise _Ended
            if self._tls is None:
                return data
            plain = self._decrypt(self._tls, data)
            if plain:
                return plain
            if self._tls.is_ended:
                raise _Ended

    async def _handshake(self) -> bytes:
        """Go on inside TLS; what came there already. Raises: _Ended.

        What was sent in the clear ahead of it breaks the handshake.
        """
        context = self._desk.context
        if context is None:
            raise _Ended  # control/servercert.pem has gone since the greeting
        self._reset_timeout(_HANDSHAKE_S)
        self._tls = tls = TlsBytes(context)
        plain = b""
        while not tls.is_open:
            data = await self._reader.read(READ_MAX)
            if not data:
                raise _Ended
            plain = self._decrypt(tls, data)
        self._talk.secured()
        return plain

    def _decrypt(self, tls: TlsBytes, data: bytes) -> bytes:
        """The plain text of it. Raises: RemoteProtocolError."""
        try:
            return tls.feed(data)
        finally:
            self._writer.write(tls.output())

    async def _flush(self) -> None:
        """Send what waits; wait for a client that does not read."""
        if self._out:
            self._write_out()
            await self._writer.drain()

    def _write_out(self) -> None:
        data = b"".join(self._out)
        self._out.clear()
        if self._tls is not None:
            if not self._tls.is_open:
                return
            self._tls.send(data)
            data = self._tls.output()
        self._writer.write(data)

    def _hang_up(self) -> None:
        """Say what is left to say, and close."""
        transport = self.transport
        if transport is None or self._linger is not None:
            return
        self._write_out()
        if self._tls is not None and self._tls.is_open:
            self._tls.close()
            self._writer.write(self._tls.output())
        # A client that does not read must not keep the connection.
        self._linger = self.loop.call_later(_LINGER_S, self.abort)
        transport.close()

    def abort(self) -> None:
        """Cut the client off."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()
