"""TLS between a protocol and its transport, on a connection that began in clear.

The layer takes the transport's place for the protocol above it, and the
protocol's place for the transport below. Unlike the loop's own start_tls it can
resume a session, and begins within the turn that read the answer to STARTTLS.
Source: RFC 3207; asyncio's transports and protocols.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from qsend.sysio.tls import TlsBroken, TlsBytes


class TlsLayer(asyncio.Protocol):
    """One TLS connection of a client, from its hello on.

    `on_up` is called when the handshake is done; `on_data` once after it, when the
    peer has sent something, by when it has also sent what resumption needs. If TLS
    breaks before that, `on_failed` is called with a few words: a server that does
    not like our certificate says so only after a TLS 1.3 handshake. Neither comes
    when the connection ends or is closed.
    """

    def __init__(
        self,
        below: asyncio.Transport,
        above: asyncio.Protocol,
        tls: TlsBytes,
        *,
        on_up: Callable[[], None],
        on_failed: Callable[[str], None],
        on_data: Callable[[], None],
    ) -> None:
        """Say hello. Raises: TlsBroken."""
        self._below = below
        self._above = above
        self._tls = tls
        self._on_up = on_up
        self._on_failed = on_failed
        self._on_data = on_data
        self._is_proven = False
        self._is_over = False
        below.set_protocol(self)
        tls.feed(b"")
        self._flush()

    # What the transport below calls.

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        if self._is_over:
            return
        was_open = self._tls.is_open
        try:
            plain = self._tls.feed(data)
        except TlsBroken as exc:
            self._break(exc)
            return
        self._flush()
        if self._tls.is_open and not was_open:
            self._on_up()
        if plain and not self._is_over:
            self._prove()
            self._above.data_received(plain)
        if self._tls.is_ended:
            self.close()

    def pause_writing(self) -> None:
        """The peer takes no more for now."""
        self._above.pause_writing()

    def resume_writing(self) -> None:
        """The peer takes more."""
        self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, whoever ended it."""
        self._is_over = True
        self._above.connection_lost(exc)

    # What the protocol above calls.

    def write(self, data: bytes) -> None:
        """Send, once it is up; a peer that has ended it is told nothing more."""
        if not self._is_over and not self._tls.is_ended:
            self._tls.send(data)
            self._flush()

    def close(self) -> None:
        """Tell the peer that nothing follows, and close after what is written."""
        if self._tls.is_open and not self._is_over:
            self._tls.close()
            self._flush()
        self._is_over = True
        self._below.close()

    def abort(self) -> None:
        """Drop the connection."""
        self._is_over = True
        self._below.abort()

    def _prove(self) -> None:
        if not self._is_proven:
            self._is_proven = True
            self._on_data()

    def _break(self, exc: TlsBroken) -> None:
        self._flush()  # the alert says why
        self._is_over = True
        if self._is_proven:
            self._below.close()
        else:
            self._on_failed(exc.reason)

    def _flush(self) -> None:
        data = self._tls.output()
        if data:
            self._below.write(data)
