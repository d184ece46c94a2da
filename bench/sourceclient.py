"""The source's process: sends numbered messages by SMTP or QMQP, and says when.

    python -m bench.sourceclient < job.json

First it prints when it began, then for each message `TIME NUMBER` once the server has
taken it. The job:
`host`, `port`, `protocol` (smtp or qmqp), `sessions` at once, `keep` (whether a session
sends more than one message), `size`, `letters` as [[number, [recipient ...]] ...].
It waits for every answer before it goes on, as most clients do.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

import uvloop

from bench.letters import SENDER, Letter


class Trouble(Exception):
    """The server did not take something."""


class Client(asyncio.Protocol):
    """One connection: write, and wait for a reply."""

    def __init__(self) -> None:
        self._input = b""
        self._waiter: asyncio.Future[bytes] | None = None
        self._is_whole = smtp_reply
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._input += data
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Trouble(f"hung up {exc or ''}"))

    def _look(self) -> None:
        if self._waiter is not None and self._is_whole(self._input):
            reply, self._input = self._input, b""
            if not self._waiter.done():
                self._waiter.set_result(reply)

    async def expect(self, start: bytes) -> None:
        """Wait for one reply that starts so. Raises: Trouble for another."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._look()
        reply = await self._waiter
        if not reply.startswith(start):
            raise Trouble(repr(reply))

    async def ask(self, data: bytes, start: bytes) -> None:
        """Write, and expect."""
        self.transport.write(data)
        await self.expect(start)

    async def ask_qmqp(self, data: bytes) -> None:
        """Write a whole request; the answer is a netstring that starts with K."""
        self._is_whole = qmqp_reply
        self.transport.write(data)
        self._waiter = asyncio.get_running_loop().create_future()
        reply = await self._waiter
        if not reply.partition(b":")[2].startswith(b"K"):
            raise Trouble(repr(reply))


def smtp_reply(data: bytes) -> bool:
    """Whether the last line is there, and is the last of a reply."""
    if not data.endswith(b"\n"):
        return False
    last = data[data.rfind(b"\n", 0, -1) + 1 :]
    return last[3:4] != b"-"


def qmqp_reply(data: bytes) -> bool:
    """Whether the netstring is whole."""
    return data.endswith(b",")


async def smtp(job: Any, letters: Iterator[Letter]) -> None:
    """One of the sessions: takes letters until there are none."""
    client: Client | None = None
    for letter in letters:
        if client is None:
            client = await connect(job)
            await client.expect(b"220")
            await client.ask(b"EHLO source.example\r\n", b"250")
        await client.ask(b"MAIL FROM:<%b>\r\n" % SENDER, b"250")
        for recip in letter.recips:
            await client.ask(b"RCPT TO:<%b>\r\n" % recip, b"250")
        await client.ask(b"DATA\r\n", b"354")
        content = letter.content().replace(b"\n", b"\r\n")
        await client.ask(content + b".\r\n", b"250")
        taken(letter)
        if not job["keep"]:
            await client.ask(b"QUIT\r\n", b"221")
            client.transport.close()
            client = None
    if client is not None:
        client.transport.close()


async def qmqp(job: Any, letters: Iterator[Letter]) -> None:
    """As smtp; this protocol takes one message for each connection."""
    for letter in letters:
        client = await connect(job)
        parts = (letter.content(), SENDER, *letter.recips)
        await client.ask_qmqp(netstring(b"".join(map(netstring, parts))))
        taken(letter)
        client.transport.close()


def netstring(data: bytes) -> bytes:
    """As qmail's protocols frame what they send."""
    return b"%d:%b," % (len(data), data)


def taken(letter: Letter) -> None:
    """Say so; standard output is written in blocks."""
    sys.stdout.write(f"{time.time():.6f} {letter.number}\n")


async def connect(job: Any) -> Client:
    """A new connection."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(Client, job["host"], job["port"])
    return client


async def run(job: Any) -> None:
    """All sessions."""
    letters = (
        Letter(number, tuple(recip.encode() for recip in recips), job["size"])
        for number, recips in job["letters"]
    )
    session = {"smtp": smtp, "qmqp": qmqp}[job["protocol"]]
    sys.stdout.write(f"{time.time():.6f}\n")
    await asyncio.gather(*(session(job, letters) for _ in range(job["sessions"])))


def main() -> None:
    """Run the job of standard input."""
    uvloop.install()
    asyncio.run(run(json.load(sys.stdin)))


if __name__ == "__main__":
    main()
