"""A network client on two descriptors, as tcpserver gives them, or on one socket.

Waits for it no longer than a time limit, in both directions. What is written is
collected and sent before the next wait.
Source: tcpserver(1) of ucspi-tcp; timeoutread.c, timeoutwrite.c of qmail.
"""

from __future__ import annotations

import os
import select
import socket
import stat

from qsend.sysio import clock

_READ_MAX = 65536
_FLUSH_AT = 65536
_PIPE_WRITE = select.PIPE_BUF
"""What a pipe that is ready takes without blocking."""


class ClientGone(Exception):
    """The client has closed the line, or was silent for too long."""


class ClientSilent(ClientGone):
    """It was silent for too long, or does not take what it is told."""


class ClientLine:
    """Reads and writes; the descriptors stay the caller's."""

    def __init__(self, reading: int, writing: int, timeout_s: float) -> None:
        self._reading = reading
        self._writing = writing
        self._timeout_s = timeout_s
        self._waiting = bytearray()
        self._socket: socket.socket | None = None
        if stat.S_ISSOCK(os.fstat(writing).st_mode):
            # A second descriptor: the object closes it when it goes.
            self._socket = socket.socket(fileno=os.dup(writing))

    def close(self) -> None:
        """Give back what this object opened."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def read(self, size: int = _READ_MAX) -> bytes:
        """Send what waits, then read what comes.

        Raises: ClientGone at the end, or when nothing comes in time.
        """
        self.flush()
        self._await(self._reading, select.POLLIN, clock.mono() + self._timeout_s)
        try:
            data = os.read(self._reading, size)
        except OSError as exc:
            raise ClientGone from exc
        if not data:
            raise ClientGone
        return data

    def write(self, data: bytes) -> None:
        """Have `data` sent, now or before the next `read`. Raises: ClientGone."""
        self._waiting += data
        if len(self._waiting) >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Send all that waits. Raises: ClientGone when the client takes nothing."""
        data = memoryview(bytes(self._waiting))
        self._waiting.clear()
        while data:
            self._await(self._writing, select.POLLOUT, clock.mono() + self._timeout_s)
            data = data[self._send(data) :]

    def _send(self, data: memoryview) -> int:
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT)
            return os.write(self._writing, data[:_PIPE_WRITE])
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise ClientGone from exc

    @staticmethod
    def _await(fd: int, mask: int, deadline_mono: float) -> None:
        poller = select.poll()
        poller.register(fd, mask)
        while not poller.poll(max(0.0, deadline_mono - clock.mono()) * 1000):
            if clock.mono() >= deadline_mono:
                raise ClientSilent
