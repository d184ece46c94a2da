"""The sink's process: an SMTP server that takes everything and keeps who got what.

    python -m bench.sinkserver PORT COUNTER_FD

It listens at every address. Where the second number of the address is 2 it never says
anything (127.2.*), where it is 3 it says one byte a second. Commands on standard input:
`latency MS` is the time from the final dot to its answer, `take` prints a line for
each message, `TIME RECIPIENT ...`, then an empty one, and forgets them. COUNTER_FD is
a file of 8 bytes: how many recipients there were since the last `take`.
"""

from __future__ import annotations

import asyncio
import mmap
import socket
import struct
import sys
import time
from typing import cast

import uvloop

SILENT, DRIPPING = 2, 3
BACKLOG = 8192
_EHLO = b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE\r\n250 8BITMIME\r\n"
_END = b"\r\n.\r\n"
_COUNTER = struct.Struct("=Q")


class State:
    """What all sessions share."""

    def __init__(self, counter_fd: int) -> None:
        self.latency_s = 0.0
        self.records: list[tuple[float, list[bytes]]] = []
        self.count = 0
        self.sessions: set[Session] = set()
        self._counter = mmap.mmap(counter_fd, _COUNTER.size)

    def record(self, recips: list[bytes]) -> None:
        """A message was taken."""
        self.records.append((time.time(), recips))
        self.count += len(recips)
        _COUNTER.pack_into(self._counter, 0, self.count)

    def command(self, line: bytes) -> None:
        """One line of standard input."""
        words = line.split()
        if words[0] == b"latency":
            self.latency_s = float(words[1]) / 1000
        elif words[0] == b"take":
            records, self.records, self.count = self.records, [], 0
            _COUNTER.pack_into(self._counter, 0, 0)
            lines = [b"%.6f %b\n" % (at, b" ".join(who)) for at, who in records]
            sys.stdout.buffer.write(b"".join(lines) + b"\n")
            sys.stdout.buffer.flush()


class Session(asyncio.Protocol):
    """One session."""

    def __init__(self, state: State, loop: asyncio.AbstractEventLoop) -> None:
        self._state = state
        self._loop = loop
        self._input = b""
        self._recips: list[bytes] = []
        self._is_data = self._is_waiting = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._state.sessions.add(self)
        kind = int(transport.get_extra_info("sockname")[0].split(".")[1])
        if kind == SILENT:
            self._is_waiting = True
        elif kind == DRIPPING:
            self._is_waiting = True
            self._drip()
        else:
            self._transport.write(b"220 sink.example ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.sessions.discard(self)
        self._is_waiting = True

    def data_received(self, data: bytes) -> None:
        self._input += data
        self._work()

    def _work(self) -> None:
        out: list[bytes] = []
        while not self._is_waiting and (self._data if self._is_data else self._line)(
            out
        ):
            pass
        if out and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def _line(self, out: list[bytes]) -> bool:
        line, end, rest = self._input.partition(b"\r\n")
        if not end:
            return False
        self._input = rest
        verb = line[:4].upper()
        if verb == b"RCPT":
            self._recips.append(line[line.index(b"<") + 1 : line.index(b">")])
            out.append(b"250 2.1.5 ok\r\n")
        elif verb == b"DATA":
            # The final dot may follow at once.
            self._input = b"\r\n" + rest
            self._is_data = True
            out.append(b"354 go on\r\n")
        elif verb == b"EHLO":
            out.append(_EHLO)
        elif verb == b"QUIT":
            self._transport.write(b"".join(out) + b"221 2.0.0 bye\r\n")
            out.clear()
            self._transport.close()
            return False
        else:
            if verb in (b"RSET", b"MAIL"):
                self._recips = []
            out.append(b"250 2.0.0 ok\r\n")
        return True

    def _data(self, out: list[bytes]) -> bool:
        at = self._input.find(_END)
        if at < 0:
            # Large messages are not kept; the end may be cut anywhere.
            self._input = self._input[-len(_END) + 1 :]
            return False
        self._input = self._input[at + len(_END) :]
        self._is_data = False
        if self._state.latency_s:
            self._is_waiting = True
            self._loop.call_later(self._state.latency_s, self._late)
            return False
        out.append(self._taken())
        return True

    def _taken(self) -> bytes:
        self._state.record(self._recips)
        self._recips = []
        return b"250 2.0.0 taken\r\n"

    def _late(self) -> None:
        if self._transport.is_closing():
            return
        self._is_waiting = False
        self._transport.write(self._taken())
        self._work()

    def _drip(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"2")
            self._loop.call_later(1, self._drip)


async def serve(port: int, counter_fd: int) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    state = State(counter_fd)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    server = await loop.create_server(
        lambda: Session(state, loop), sock=listener, backlog=BACKLOG
    )
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    sys.stdout.buffer.write(b"%d\n" % listener.getsockname()[1])
    sys.stdout.buffer.flush()
    while line := await reader.readline():
        state.command(line)
    server.close()


def main() -> None:
    """Serve."""
    uvloop.install()
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
