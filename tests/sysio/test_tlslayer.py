"""The client's TLS layer: whatever way the bytes are cut, and when TLS breaks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

import pytest

from qsend.core.tlspolicy import Level
from qsend.formats.tlscontrols import TlsControls
from qsend.sysio.tls import TlsBytes
from qsend.sysio.tlscontext import client_context
from qsend.sysio.tlslayer import TlsLayer
from tests.certificates import Authority, server_context


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    return server_context(authority.certify("DNS:mx.example.org"))


class Below:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.happened: list[str] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.happened.append("taken")

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.happened.append("closed")

    def abort(self) -> None:
        self.happened.append("aborted")

    def take(self) -> bytes:
        data, self.written = self.written, b""
        return data


class Above(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard = b""
        self.happened: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def pause_writing(self) -> None:
        self.happened.append("paused")

    def resume_writing(self) -> None:
        self.happened.append("resumed")

    def connection_lost(self, exc: Exception | None) -> None:
        self.happened.append("lost")


class Line:
    """A layer, its two neighbours, and the server's end."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.below, self.above = Below(), Above()
        self.events: list[str] = []
        self.server = TlsBytes(context)
        client = client_context(Level.MAY, TlsControls(), b"")
        self.layer = TlsLayer(
            cast(asyncio.Transport, self.below),
            self.above,
            TlsBytes(client, is_server=False),
            on_up=self._note("up"),
            on_failed=self.events.append,
            on_data=self._note("data"),
        )

    def _note(self, word: str) -> Callable[[], None]:
        return lambda: self.events.append(word)

    def pump(self, cut: int = 100_000) -> bytes:
        """Carry bytes both ways until there are none; what the server heard."""
        heard = b""
        while True:
            up = self.below.take()
            if up:
                heard += self.server.feed(up)
            down = self.server.output()
            for at in range(0, len(down), cut):
                self.layer.data_received(down[at : at + cut])
            if not up and not down:
                return heard


@pytest.mark.parametrize("cut", [1, 2, 3, 100_000])
def test_bytes_arrive_however_they_are_cut(server: ssl.SSLContext, cut: int) -> None:
    line = Line(server)
    line.pump(cut)
    assert line.events == ["up"]
    line.layer.write(b"x" * 100_000)
    assert line.pump(cut) == b"x" * 100_000
    line.server.send(b"250 ok\r\n")
    line.server.send(b"y" * 40_000)
    line.pump(cut)
    assert line.above.heard == b"250 ok\r\n" + b"y" * 40_000
    assert line.events == ["up", "data"]
    line.layer.close()
    line.pump(cut)
    assert line.server.is_ended
    assert line.below.happened == ["taken", "closed"]


def test_farewell_of_the_peer_closes(server: ssl.SSLContext) -> None:
    line = Line(server)
    line.pump()
    line.server.send(b"221 bye\r\n")
    line.server.close()
    line.pump()
    assert line.above.heard == b"221 bye\r\n"
    assert "closed" in line.below.happened
    line.layer.write(b"more")
    line.layer.data_received(b"more")
    assert line.above.heard == b"221 bye\r\n"


def test_what_came_before_broken_bytes_counts(server: ssl.SSLContext) -> None:
    line = Line(server)
    line.pump()
    line.server.send(b"250 ok\r\n")
    line.layer.data_received(line.server.output() + b"garbage, no record at all")
    assert line.above.heard == b"250 ok\r\n"
    assert line.events == ["up", "data"]
    line.layer.write(b"QUIT\r\n")
    assert "closed" in line.below.happened


@pytest.mark.parametrize("is_up", [False, True])
def test_broken_bytes_before_any_data_are_a_failure(
    server: ssl.SSLContext, is_up: bool
) -> None:
    line = Line(server)
    if is_up:
        line.pump()
    line.layer.data_received(b"220 what\r\n")
    assert line.events == [*(["up"] if is_up else []), "wrong version number"]
    assert line.below.happened == ["taken"]  # it is for who asked for TLS to close


def test_neighbours_are_told_of_each_other(server: ssl.SSLContext) -> None:
    line = Line(server)
    line.layer.pause_writing()
    line.layer.resume_writing()
    line.layer.connection_lost(None)
    assert line.above.happened == ["paused", "resumed", "lost"]
    line.layer.abort()
    assert line.below.happened == ["taken", "aborted"]
