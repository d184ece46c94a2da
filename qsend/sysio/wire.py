"""A byte stream both ways that never blocks: a socket, or a pipe for each way.

A classic spawner or cleaner is at the other end. Source: qmail-start.c (pipes),
docs/ARCHITECTURE.md (socketpairs).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from qsend.core import family
from qsend.sysio.loop import READ, WRITE, Loop


class Wire:
    """Two descriptors, owned: what to read from and what to write to."""

    def __init__(self, reads: int, writes: int) -> None:
        """The descriptors differ; each may be waited for on its own."""
        self._reads = reads
        self._writes = writes
        self._loop: Loop | None = None
        self._on_writable: Callable[[], None] = _nothing
        self._waits = False
        self._is_closed = False
        for fd in (reads, writes):
            os.set_blocking(fd, False)

    @classmethod
    def of_socket(cls, sock: socket.socket) -> Wire:
        """The same over a stream socket, which passes to the wire."""
        fd = sock.detach()
        return cls(fd, os.dup(fd))

    def serve(
        self,
        loop: Loop,
        on_readable: Callable[[], None],
        on_writable: Callable[[], None] | None = None,
    ) -> None:
        """Call back when there is something to read, or an end; see `await_room`."""
        self._loop = loop
        self._on_writable = on_writable or _nothing
        loop.register(self._reads, READ, lambda _mask: on_readable())

    def await_room(self, wanted: bool) -> None:
        """Whether `on_writable` is called as soon as something can be written."""
        if self._loop is None or wanted == self._waits:
            return
        self._waits = wanted
        if wanted:
            self._loop.register(self._writes, WRITE, lambda _mask: self._on_writable())
        else:
            self._loop.unregister(self._writes)

    def read(self, size: int) -> bytes:
        """What there is; b"" at the end. Raises: BlockingIOError, OSError."""
        return os.read(self._reads, size)

    def write(self, data: bytes | bytearray) -> int:
        """How much was taken. Raises: BlockingIOError, OSError."""
        return os.write(self._writes, data)

    def close(self) -> None:
        """Close both; more than once does no harm."""
        if self._is_closed:
            return
        self.await_room(False)
        self._is_closed = True
        if self._loop is not None:
            self._loop.unregister(self._reads)
        os.close(self._reads)
        os.close(self._writes)


def wires_of(socks: Mapping[str, socket.socket]) -> dict[str, Wire]:
    """Role to wire of the classic programs in `socks`, which pass to the wires."""
    return {
        role: Wire.of_socket(sock)
        for role, sock in socks.items()
        if family.is_classic(role)
    }


def _nothing() -> None:
    """Nobody waits to write."""
