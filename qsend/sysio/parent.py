"""A child's line to start: new controls, replaced siblings, readiness.

start's death closes the line; every child ends then (exit 0), so that no tree
is left without its root.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from qsend.core.errors import RemoteProtocolError
from qsend.formats import startwire
from qsend.formats.frames import FDS_MAX, frame
from qsend.sysio import sealed
from qsend.sysio.endpoint import Descriptors, Endpoint, Poller


class Parent:
    """Receives what start says and answers READY and ASK."""

    def __init__(
        self,
        loop: Poller,
        sock: socket.socket,
        *,
        on_close: Callable[[], None],
        on_controls: Callable[[int, Mapping[str, bytes]], None] | None = None,
        on_peer: Callable[[str, socket.socket], None] | None = None,
        on_signal: Callable[[bytes], None] | None = None,
        on_detach: Callable[[], None] | None = None,
        on_ping: Callable[[], bytes] | None = None,
    ) -> None:
        """Own `sock`.

        Args:
            on_close: start is gone, or asked this process to end by closing.
            on_controls: (generation, files by name), already validated by start;
                secret ones that this process may know are among them.
            on_peer: (role, connected socket) of a replaced sibling.
            on_signal: a SIGNAL_ word; only send gets them.
            on_detach: start will leave without ending this process; only
                enqueue gets this.
            on_ping: how this process does, in a line; only send is asked.
        """
        self._on_close = on_close
        self._on_controls = on_controls
        self._on_peer = on_peer
        self._on_signal = on_signal
        self._on_detach = on_detach
        self._on_ping = on_ping
        self._parts = b""
        self._secrets: dict[str, bytes] = {}
        self._endpoint = Endpoint(
            loop, sock, self._frame, self._closed, max_fds=FDS_MAX
        )

    def ready(self) -> None:
        """Say that this process serves now."""
        self._endpoint.send(frame(startwire.READY, b""))
        self._endpoint.flush()

    def ask(self, word: bytes) -> None:
        """Send an ASK_ word."""
        self._endpoint.send(frame(startwire.ASK, word))

    def _closed(self, _reason: str) -> None:
        self._on_close()

    def _frame(self, kind: bytes, body: bytes, fds: Descriptors) -> None:
        if kind == startwire.CONTROLS_PART:
            self._parts += body
        elif kind == startwire.CONTROLS and self._on_controls is not None:
            whole, self._parts = self._parts + body, b""
            generation, files = startwire.parse_controls(whole)
            secrets, self._secrets = self._secrets, {}
            self._on_controls(generation, {**files, **secrets})
        elif kind == startwire.SECRET and self._on_controls is not None:
            self._secrets[body.decode()] = _content(fds.take())
        elif kind == startwire.PEER and self._on_peer is not None:
            self._on_peer(body.decode(), socket.socket(fileno=fds.take()))
        elif kind == startwire.SIGNAL and self._on_signal is not None:
            self._on_signal(body)
        elif kind == startwire.DETACH and self._on_detach is not None:
            self._on_detach()
        elif kind == startwire.PING and self._on_ping is not None:
            self._endpoint.send(frame(startwire.PONG, self._on_ping()))
        else:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from start")


def _content(fd: int) -> bytes:
    try:
        return sealed.content(fd)
    finally:
        os.close(fd)
