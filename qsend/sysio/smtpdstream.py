"""The bytes of one SMTP client: aiosmtpd's stream, inside TLS or not.

aiosmtpd has the connection, its back-pressure and the time limit; TLS is ours, because
a handshake may come in the middle, and what was sent ahead of it must not count.
Must not: know what the bytes mean.
Source: docs/adr/0007-aiosmtpd-without-its-commands.md; aiosmtpd.smtp; RFC 3207.
"""

from __future__ import annotations

import asyncio
import ssl

from aiosmtpd.smtp import SMTP

from qsend.core import smtpdreplies as replies
from qsend.sysio.patience import Patience
from qsend.sysio.tls import TlsBytes

READ_MAX = 65536
_HANDSHAKE_S = 60.0
_LINGER_S = 30.0
"""How long the last words to a client may take."""


class Ended(Exception):
    """The client has left, or is to leave."""


class SmtpdStream(SMTP):
    """One connection; `out` is what is to be said at the next flush."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        # Not SMTP's: it looks through its own members for commands and mechanisms,
        # a quarter of all processor time with a connection for each message.
        reader = asyncio.StreamReader(limit=READ_MAX, loop=loop)
        asyncio.StreamReaderProtocol.__init__(
            self, reader, self._cb_client_connected, loop
        )
        self.loop = loop
        self.session = None
        self.transport = None
        self._handler_coroutine = None
        self._original_transport = None
        self._timeout_duration = timeout_s
        self._patience = Patience(loop, self._timeout_cb)
        # SMTP cancels it in the end, and does nothing else with it.
        self._timeout_handle = self._patience  # type: ignore[assignment]
        self.out: list[bytes] = []
        self.tls: TlsBytes | None = None
        self._unread = 0
        """Bytes in aiosmtpd's stream; the PROXY header counts for ever."""
        self._is_ending = self._is_paused = False
        self._parked: asyncio.Future[None] | None = None
        self._linger: asyncio.TimerHandle | None = None

    # What aiosmtpd calls

    def data_received(self, data: bytes) -> None:
        """Have it answered at once, if the session's task waits for nothing else.

        Waking a task for each command takes longer than the command.
        """
        parked = self._parked
        if parked is None or parked.done() or len(data) > READ_MAX:
            self._unpark()
            self._unread += len(data)
            super().data_received(data)
            return
        try:
            is_answered = self.answer(data)
        except Exception as exc:  # noqa: BLE001 - it is the task's
            self._parked = None
            parked.set_exception(exc)
            return
        if self.out and is_answered:
            self._write_out()
        if not is_answered or self._is_paused:
            self._unpark()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._is_paused = True

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._is_paused = False

    def eof_received(self) -> bool:
        """No more commands; what was said is still done, and answered."""
        self._is_ending = True
        self._unpark()
        self._reader.feed_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing is to be said any more."""
        super().connection_lost(error)
        if self._linger is not None:
            self._linger.cancel()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Count from now."""
        self._patience.give(duration or self._timeout_duration)

    def _timeout_cb(self) -> None:
        """The client was silent for too long."""
        self.out.append(replies.TIMEOUT)
        self.hang_up()

    # For the session

    def answer(self, data: bytes) -> bool:
        """Do what bytes ask for without waiting; False: `hear` is to return.

        Not called inside TLS, nor while somebody reads.
        """
        raise NotImplementedError

    async def hear(self) -> bytes:
        """What the client says next, b"" when `answer` had it.

        Raises: Ended at its end, RemoteProtocolError; what `answer` raised.
        """
        if self._unread or self._is_ending or self._is_paused or self.tls is not None:
            return await self.read()
        self._parked = self.loop.create_future()
        try:
            await self._parked
        finally:
            self._parked = None
        return b""

    def _unpark(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None and not parked.done():
            parked.set_result(None)

    async def read(self) -> bytes:
        """What the client says next. Raises: Ended at its end, RemoteProtocolError."""
        while True:
            data = await self._read()
            if self.tls is None:
                return data
            plain = self._decrypt(self.tls, data)
            if plain:
                return plain
            if self.tls.is_ended:
                raise Ended

    async def handshake(self, context: ssl.SSLContext | None) -> bytes:
        """Go on inside TLS; what came there already.

        What was sent in the clear ahead of it breaks the handshake.
        Raises: Ended, also without `context`; RemoteProtocolError.
        """
        if context is None:
            raise Ended  # control/servercert.pem has gone since the greeting
        self._reset_timeout(_HANDSHAKE_S)
        self.tls = tls = TlsBytes(context)
        plain = b""
        while not tls.is_open:
            data = await self._read()
            plain = self._decrypt(tls, data)
        return plain

    async def _read(self) -> bytes:
        """Bytes as they came. Raises: Ended."""
        data = await self._reader.read(READ_MAX)
        if not data:
            raise Ended
        self._unread -= len(data)
        return data

    async def flush(self) -> None:
        """Send what waits; wait for a client that does not read."""
        if self.out:
            self._write_out()
            await self._writer.drain()

    def hang_up(self) -> None:
        """Say what is left to say, and close."""
        transport = self.transport
        if transport is None or self._linger is not None:
            return
        self._write_out()
        if self.tls is not None and self.tls.is_open:
            self.tls.close()
            self._writer.write(self.tls.output())
        # A client that does not read must not keep the connection.
        self._linger = self.loop.call_later(_LINGER_S, self.abort)
        transport.close()

    def abort(self) -> None:
        """Cut the client off."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()

    def _decrypt(self, tls: TlsBytes, data: bytes) -> bytes:
        """The plain text of it. Raises: RemoteProtocolError."""
        try:
            return tls.feed(data)
        finally:
            self._writer.write(tls.output())

    def _write_out(self) -> None:
        data = b"".join(self.out)
        self.out.clear()
        if self.tls is not None:
            if not self.tls.is_open:
                return
            self.tls.send(data)
            data = self.tls.output()
        self._writer.write(data)
