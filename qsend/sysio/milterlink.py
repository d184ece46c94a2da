"""One connection to a mail filter: agreed upon, used by one client after the other.

Source: docs/NETWORK.md; libmilter's engine.c.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from qsend.core.errors import RemoteProtocolError, TempFail
from qsend.core.milter import Steps, Verdict
from qsend.core.milterwords import Actions, Answer, Heard, Say, Stage, Terms
from qsend.formats import milter as wire
from qsend.formats.milters import Milter
from qsend.sysio import threads

_READ_MAX = 65536
_SHARING_SINCE = 6
"""The version in which a connection can serve another client."""
_PATIENCE = 6
"""A filter that reports progress may take so many times as long in all."""


class LinkBroken(TempFail):
    """The filter cannot be reached, is too slow, or makes no sense."""


class Link:
    """A connection; what cannot go on has been dropped, and `is_lost`."""

    def __init__(
        self,
        milter: Milter,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Not agreed upon yet; `connect` does that."""
        self.terms = Terms(version=wire.VERSION, actions=Actions(0))
        self._milter = milter
        self._reader = reader
        self._writer = writer
        self._packets = wire.PacketReader()

    @property
    def is_lost(self) -> bool:
        """Whether it has been closed, by whomever."""
        return self._writer.is_closing() or self._reader.at_eof()

    @property
    def can_be_shared(self) -> bool:
        """Whether another client may have it after this one."""
        return self.terms.version >= _SHARING_SINCE and not self.is_lost

    async def run(self, steps: Steps) -> Verdict:
        """Hold a conversation: the verdict. Raises: LinkBroken."""
        try:
            say = next(steps)
            while True:
                say = steps.send(await self._exchange(say))
        except StopIteration as end:
            verdict: Verdict = end.value
            return verdict
        except (OSError, RemoteProtocolError) as exc:
            self.abort()
            raise LinkBroken(_reason(exc)) from exc
        except BaseException:
            self.abort()
            raise

    def end_client(self, *, is_open: bool) -> None:
        """Have the filter forget this client, and the message if one `is_open`."""
        if is_open:
            self._writer.write(wire.render(Say(stage=Stage.ABORT)))
        last = Stage.NEXT if self.can_be_shared else Stage.QUIT
        self._writer.write(wire.render(Say(stage=last)))

    def close(self) -> None:
        """Close it when what was written is sent."""
        self._writer.close()

    def abort(self) -> None:
        """Drop it."""
        self._writer.transport.abort()

    async def negotiate(self) -> None:
        """The first thing to do. Raises: OSError, RemoteProtocolError."""
        self._writer.write(wire.render_offer())
        letter, data = await self._packet()
        if letter != wire.NEGOTIATE:
            raise RemoteProtocolError(f"answer {letter!r} to the negotiation")
        self.terms = wire.parse_terms(data)

    async def _exchange(self, say: Say | None) -> Heard | None:
        milter = self._milter
        if say is None:
            return await self._hear(milter.content_s)
        if self._packets.is_ahead:
            raise RemoteProtocolError("it spoke out of turn")
        self._writer.write(wire.render(say))
        async with asyncio.timeout(milter.timeout_s):
            await self._writer.drain()
        if not say.has_answer:
            return None
        is_end = say.stage is Stage.END
        return await self._hear(milter.content_s if is_end else milter.timeout_s)

    async def _hear(self, timeout_s: float) -> Heard:
        """The next answer that is not about progress. Raises: TimeoutError ..."""
        async with asyncio.timeout(timeout_s * _PATIENCE):
            while True:
                async with asyncio.timeout(timeout_s):
                    packet = await self._packet()
                heard = wire.parse_answer(*packet)
                if heard is not Answer.PROGRESS:
                    return heard

    async def _packet(self) -> tuple[bytes, bytes]:
        while (packet := self._packets.take()) is None:
            data = await self._reader.read(_READ_MAX)
            if not data:
                raise RemoteProtocolError("it hung up")
            self._packets.feed(data)
        return packet


async def connect(milter: Milter) -> Link:
    """A new connection, agreed upon. Raises: LinkBroken."""
    try:
        async with asyncio.timeout(milter.connect_s):
            link = Link(milter, *await _streams(milter))
            try:
                await link.negotiate()
            except BaseException:
                link.abort()
                raise
            return link
    except (OSError, RemoteProtocolError) as exc:
        raise LinkBroken(_reason(exc)) from exc


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _streams(milter: Milter) -> _Streams:
    """Of the first address that takes a connection. Raises: LinkBroken, OSError."""
    if milter.path:
        return await asyncio.open_unix_connection(milter.path)
    failure: OSError = ConnectionError("it has no address")
    for address in await _addresses(milter):
        try:
            return await asyncio.open_connection(address, milter.port)
        except OSError as exc:
            failure = exc
    raise failure


async def _addresses(milter: Milter) -> list[str]:
    """The addresses of its host. Raises: LinkBroken, OSError.

    Names are looked up in a thread of ours. The loop would have libuv do it, which
    ends the process where it gets no thread.
    """
    try:
        return _looked_up(milter, socket.AI_NUMERICHOST)
    except OSError:
        pass
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str] | OSError] = loop.create_future()

    def settle(result: list[str] | OSError) -> None:
        if not found.done():
            found.set_result(result)

    def look() -> None:
        try:
            result: list[str] | OSError = _looked_up(milter)
        except OSError as exc:
            result = exc
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result)

    try:
        threads.start(look)
    except RuntimeError as exc:
        raise LinkBroken("no thread is to be had") from exc
    result = await found
    if isinstance(result, OSError):
        raise result
    return result


def _looked_up(milter: Milter, flags: int = 0) -> list[str]:
    rows = socket.getaddrinfo(
        milter.host, milter.port, type=socket.SOCK_STREAM, flags=flags
    )
    return [str(address[0]) for *_, address in rows]


def _reason(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, OSError):
        return exc.strerror or str(exc) or "broken connection"
    return str(exc)
