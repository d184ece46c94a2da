"""The way to a mail filter that has a name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from qsend.formats.milters import Milter
from qsend.sysio import milterlink, threads
from qsend.sysio.milterlink import LinkBroken


async def meet(host: str) -> int:
    """How many connections a filter at that host gets, which hangs up at once."""
    seen = 0

    def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(LinkBroken):
            await milterlink.connect(Milter(name="x", host=host, port=port))
    finally:
        server.close()
        await server.wait_closed()
    return seen


def test_host_has_an_address_or_a_name() -> None:
    for host in ("127.0.0.1", "localhost"):
        assert uvloop.run(meet(host)) == 1


def test_name_without_an_address_is_a_broken_link() -> None:
    assert uvloop.run(meet("no-such-host.invalid")) == 0


def test_without_a_thread_an_address_does_and_a_name_is_a_broken_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(_target: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "start", no_thread)
    assert uvloop.run(meet("127.0.0.1")) == 1
    assert uvloop.run(meet("localhost")) == 0
