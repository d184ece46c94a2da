"""A TCP listener under asyncio that looks away while there are no descriptors.

A server of the loop would be told of the same client again and again.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from qsend.sysio.acceptor import Acceptor
from qsend.sysio.aioloop import AioLoop


class AioListener:
    """Takes clients until it is closed; each gets a protocol of its own."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        make: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        """Own the listening `sock`."""
        self._loop = loop
        self._make = make
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptor = Acceptor(AioLoop(loop), sock, self._welcome)

    def close(self) -> None:
        """Take no more clients."""
        listener = self._acceptor.release()
        if listener is not None:
            listener.close()

    def _welcome(self, sock: socket.socket) -> None:
        task = self._loop.create_task(self._connect(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._make, sock)
        except OSError:
            sock.close()  # that client has left
