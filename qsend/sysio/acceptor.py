"""A listening socket under a loop that gives out its clients.

Without descriptors for another client the socket stays ready for ever: it is then
looked away from for a while, so that nobody spins on what cannot be had.
Source: accept(2).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Protocol

from qsend.sysio.loop import READ

PER_TURN = 64
PAUSE_S = 0.2
_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Watcher(Protocol):
    """What an acceptor needs of a loop: Loop has it, and AioLoop for asyncio."""

    def register(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call back with the ready mask."""

    def unregister(self, fd: int) -> None:
        """Stop waiting."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call back once."""


class Acceptor:
    """Accepts clients until it is released."""

    def __init__(
        self,
        loop: Watcher,
        listener: socket.socket,
        on_client: Callable[[socket.socket], None],
        per_turn: int = PER_TURN,
    ) -> None:
        """Own `listener`; `on_client` owns what it gets, `per_turn` at most."""
        self._loop = loop
        self._listener: socket.socket | None = listener
        self._on_client = on_client
        self._per_turn = per_turn
        listener.setblocking(False)
        self._resume()

    def release(self) -> socket.socket | None:
        """Accept no more, and give the listening socket back; None if that was done."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._loop.unregister(listener.fileno())
        return listener

    def _accept(self, _mask: int) -> None:
        for _ in range(self._per_turn):
            if self._listener is None:
                return
            try:
                sock, _addr = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _SHORTAGE:
                    self._pause()
                    return
                continue  # that client gave up before we came
            self._on_client(sock)

    def _pause(self) -> None:
        assert self._listener is not None
        self._loop.unregister(self._listener.fileno())
        self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._listener is not None:
            self._loop.register(self._listener.fileno(), READ, self._accept)
