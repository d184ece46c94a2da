"""An SMTP server for many sessions at once: one event loop in a thread.

    with Sink(sessions_max=2) as sink:
        ... port = sink.port ...

Unlike smtppeer it does nothing odd by script; it counts, can refuse sessions over
a limit with 421, and can hold every session before it answers a step.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from qsend.sysio import clock

DEADLINE_S = 20.0
BACKLOG = 4096
EHLO = b"250-sink\r\n250-PIPELINING\r\n250-SIZE\r\n250 8BITMIME\r\n"


@dataclass(slots=True)
class Mail:
    """One message as it came: MAIL line, recipients, content without the dot line."""

    sender: bytes
    recips: list[bytes] = field(default_factory=list)
    content: bytes = b""


class Sink:
    """The server; use it in a `with` block."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        sessions_max: int = 1 << 30,
        hold: bool = False,
        slow_s: float = 0.0,
    ) -> None:
        """Listen.

        Args:
            sessions_max: who comes when so many sessions are open is told 421.
            hold: answer no final dot before `open_gate`.
            slow_s: how long each final dot takes to be answered.
        """
        self.mails: list[Mail] = []
        self.sessions = self.refused = self.open = self.peak = 0
        self.sessions_max = sessions_max
        self.slow_s = slow_s
        self.gate = asyncio.Event()
        if not hold:
            self.gate.set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._started: Future[None] = Future()
        self._came = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.transports: set[asyncio.Transport] = set()

    def __enter__(self) -> Sink:
        self._thread.start()
        self._started.result(DEADLINE_S)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def open_gate(self) -> None:
        """Answer the final dots, now and from now on."""
        self._loop.call_soon_threadsafe(self.gate.set)

    def wait_for_mails(self, count: int) -> None:
        """Wait until so many messages came whole, answered or not."""
        end = clock.mono() + DEADLINE_S
        while len(self.mails) < count:
            assert clock.mono() < end, f"{len(self.mails)} of {count} messages"
            self._came.wait(0.1)
            self._came.clear()

    def stop_listening(self) -> None:
        """Refuse new connections; those that are there go on."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(DEADLINE_S)

    async def _close(self) -> None:
        self._server.close()

    def came(self, mail: Mail) -> None:
        """A message came whole."""
        self.mails.append(mail)
        self._came.set()

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        making = loop.create_server(
            lambda: _Session(self), sock=self._listener, backlog=BACKLOG
        )
        self._server = server = loop.run_until_complete(making)
        self._started.set_result(None)
        loop.run_forever()
        server.close()
        for transport in tuple(self.transports):
            transport.abort()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(server.wait_closed())
        loop.close()


class _Session(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._searched = 0
        self._mail: Mail | None = None
        self._in_content = False
        self._is_counted = False
        self._answering: asyncio.Task[None] | None = None

    def connection_made(
        self,
        transport: asyncio.Transport,  # type: ignore[override] # TCP gives no other
    ) -> None:
        self._transport = transport
        # asyncio forgets it on sockets whose protocol number is the default one.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sink = self._sink
        sink.transports.add(transport)
        if sink.open >= sink.sessions_max:
            sink.refused += 1
            transport.write(b"421 too many sessions\r\n")
            transport.close()
            return
        self._is_counted = True
        sink.sessions += 1
        sink.open += 1
        sink.peak = max(sink.peak, sink.open)
        transport.write(b"220 sink\r\n")

    def connection_lost(self, _exc: Exception | None) -> None:
        self._sink.transports.discard(self._transport)
        self._sink.open -= self._is_counted

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def _go_on(self) -> None:
        while self._answering is None:
            if self._in_content:
                if not self._take_content():
                    return
            else:
                at = self._buffer.find(b"\r\n")
                if at < 0:
                    return
                line = bytes(self._buffer[:at])
                # A lone dot ends what has no line: its CRLF may be this one.
                del self._buffer[: at if line == b"DATA" else at + 2]
                self._command(line)

    def _take_content(self) -> bool:
        at = self._buffer.find(b"\r\n.\r\n", self._searched)
        if at < 0 or self._mail is None:
            self._searched = max(0, len(self._buffer) - 4)
            return False
        self._mail.content = bytes(self._buffer[2 : at + 2])
        del self._buffer[: at + 5]
        self._sink.came(self._mail)
        self._in_content, self._mail, self._searched = False, None, 0
        if self._sink.gate.is_set() and not self._sink.slow_s:
            self._transport.write(b"250 ok\r\n")
        else:
            self._answering = asyncio.ensure_future(self._answer_later())
        return True

    async def _answer_later(self) -> None:
        await asyncio.sleep(self._sink.slow_s)
        await self._sink.gate.wait()
        self._answering = None
        self._transport.write(b"250 ok\r\n")
        self._go_on()

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"EHLO":
            answer = EHLO
        elif verb == b"MAIL":
            self._mail, answer = Mail(line), b"250 s\r\n"
        elif verb == b"RCPT" and self._mail is not None:
            self._mail.recips.append(line[9:-1])
            answer = b"250 r\r\n"
        elif verb == b"DATA":
            self._in_content, answer = True, b"354 go\r\n"
        elif verb == b"QUIT":
            answer = b"221 bye\r\n"
        else:
            answer = b"500 what\r\n"
        self._transport.write(answer)
        if verb == b"QUIT":
            self._transport.close()
