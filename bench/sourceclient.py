"""The source's process: sends numbered messages by SMTP or QMQP, and says when.

    python -m bench.sourceclient < job.json

First it prints when it began, then for each message `TIME NUMBER` once the server has
taken it. The job:
`host`, `port`, `protocol` (smtp or qmqp), `sessions` at once, `keep` (whether a session
sends more than one message), `size`, `letters` as [[number, [recipient ...]] ...].
It waits for every answer before it goes on, as most clients do.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from bench.letters import SENDER, Letter

READ = 65536
Step = Generator[None, None, None]
"""Yields whenever it waits for the server."""


class Trouble(Exception):
    """The server did not take something."""


class Link:
    """A session's connection, while it has one."""

    def __init__(self, host: str, port: int, opened: Callable[[Link], None]) -> None:
        """`opened` is called with this link for each new connection."""
        self._address = (host, port)
        self._opened = opened
        self._input = b""
        self.sock: socket.socket | None = None

    def open(self) -> None:
        """Connect."""
        self.sock = socket.create_connection(self._address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._opened(self)

    def close(self) -> None:
        """Hang up."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def receive(self) -> None:
        """Take what has come. Raises: Trouble when the server hung up."""
        assert self.sock is not None
        data = self.sock.recv(READ)
        if not data:
            raise Trouble("hung up")
        self._input += data

    def write(self, data: bytes) -> None:
        """All of it; the server reads while we write."""
        assert self.sock is not None
        self.sock.sendall(data)

    def expect(self, start: bytes) -> Step:
        """Wait for one reply of SMTP that starts so. Raises: Trouble for another."""
        # A line that is not the last of a reply has `-` behind its code.
        while not self._input.endswith(b"\n") or self._last_line()[3:4] == b"-":
            yield
        self._require(self._input.startswith(start))

    def ask(self, data: bytes, start: bytes) -> Step:
        """Write, and expect."""
        self.write(data)
        return self.expect(start)

    def expect_taken(self) -> Step:
        """Wait for QMQP's answer, a netstring that starts with K. Raises: Trouble."""
        while not self._input.endswith(b","):
            yield
        self._require(self._input.partition(b":")[2].startswith(b"K"))

    def _last_line(self) -> bytes:
        return self._input[self._input.rfind(b"\n", 0, -1) + 1 :]

    def _require(self, is_good: bool) -> None:
        reply, self._input = self._input, b""
        if not is_good:
            raise Trouble(repr(reply))


def smtp(link: Link, letters: Iterator[Letter], *, keep: bool) -> Step:
    """One of the sessions: takes letters until there are none."""
    for letter in letters:
        if link.sock is None:
            link.open()
            yield from link.expect(b"220")
            yield from link.ask(b"EHLO source.example\r\n", b"250")
        yield from link.ask(b"MAIL FROM:<%b>\r\n" % SENDER, b"250")
        for recip in letter.recips:
            yield from link.ask(b"RCPT TO:<%b>\r\n" % recip, b"250")
        yield from link.ask(b"DATA\r\n", b"354")
        content = letter.content().replace(b"\n", b"\r\n")
        yield from link.ask(content + b".\r\n", b"250")
        taken(letter)
        if not keep:
            yield from link.ask(b"QUIT\r\n", b"221")
            link.close()
    link.close()


def qmqp(link: Link, letters: Iterator[Letter], *, keep: bool) -> Step:
    """As smtp; this protocol takes one message for each connection."""
    for letter in letters:
        link.open()
        parts = (letter.content(), SENDER, *letter.recips)
        link.write(netstring(b"".join(map(netstring, parts))))
        yield from link.expect_taken()
        taken(letter)
        link.close()


def netstring(data: bytes) -> bytes:
    """As qmail's protocols frame what they send."""
    return b"%d:%b," % (len(data), data)


def taken(letter: Letter) -> None:
    """Say so; standard output is written in blocks."""
    sys.stdout.write(f"{time.time():.6f} {letter.number}\n")


def run(job: Any) -> None:
    """All sessions."""
    letters = (
        Letter(number, tuple(recip.encode() for recip in recips), job["size"])
        for number, recips in job["letters"]
    )
    session = {"smtp": smtp, "qmqp": qmqp}[job["protocol"]]
    steps: dict[Link, Step] = {}
    links: dict[int, Link] = {}
    poll = select.epoll()

    def opened(link: Link) -> None:
        assert link.sock is not None
        links[link.sock.fileno()] = link
        poll.register(link.sock, select.EPOLLIN)

    def advance(link: Link) -> None:
        if next(steps[link], True):  # None while it waits
            del steps[link]

    sys.stdout.write(f"{time.time():.6f}\n")
    for _ in range(job["sessions"]):
        link = Link(job["host"], job["port"], opened)
        steps[link] = session(link, letters, keep=job["keep"])
        advance(link)
    while steps:
        for fd, _ in poll.poll():
            links[fd].receive()
            advance(links[fd])


if __name__ == "__main__":
    run(json.load(sys.stdin))
