"""The stream between a POP3 client's connection and the process that serves it.

Belongs to an asyncio loop. What cannot be written at once waits here, and the client
is not heard meanwhile.
Source: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Protocol

_READ_MAX = 65536


class Client(Protocol):
    """Who is at the other side."""

    def answered(self, data: bytes) -> None:
        """Bytes of the session."""

    def session_ended(self) -> None:
        """Nothing more comes."""

    def set_reading(self, wanted: bool) -> None:
        """Whether the client is to be heard."""


class PopStream:
    """One session's stream, from the login on."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, client: Client
    ) -> None:
        """Own `fd`, a connected stream socket."""
        self._loop = loop
        self._client = client
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._waiting = bytearray()
        self._is_ended = self._is_closed = False
        self._is_reading = False
        self.set_reading(True)

    def write(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._is_closed or self._is_ended:
            return
        if self._waiting:
            self._waiting += data
            return
        sent = self._send(data)
        if sent < len(data) and not self._is_closed:
            self._waiting += data[sent:]
            self._client.set_reading(False)
            self._loop.add_writer(self._sock, self._writable)

    def end(self) -> None:
        """The client says nothing more; the session may still answer."""
        self._is_ended = True
        if not self._waiting and not self._is_closed:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def set_reading(self, wanted: bool) -> None:
        """Whether the session is heard."""
        if self._is_closed or wanted == self._is_reading:
            return
        self._is_reading = wanted
        if wanted:
            self._loop.add_reader(self._sock, self._readable)
        else:
            self._loop.remove_reader(self._sock)

    def close(self) -> None:
        """The client has gone; a session without QUIT changes nothing."""
        if self._is_closed:
            return
        self.set_reading(False)
        self._is_closed = True
        if self._waiting:
            self._loop.remove_writer(self._sock)
        self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._client.answered(data)
        else:
            self.close()
            self._client.session_ended()

    def _writable(self) -> None:
        del self._waiting[: self._send(self._waiting)]
        if self._waiting or self._is_closed:
            return
        self._loop.remove_writer(self._sock)
        self._client.set_reading(True)
        if self._is_ended:
            self.end()

    def _send(self, data: bytes | bytearray) -> int:
        """How much was taken; all, when there is nobody to take it."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # it has ended; its last words are still read
