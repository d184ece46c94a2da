"""A session whose transport and peer do as the test says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from qsend.core.model import Letter
from qsend.core.mx import Host
from qsend.core.smtptypes import Envelope, Outcome
from qsend.core.tlspolicy import Demand
from qsend.formats.tlscontrols import TlsControls
from qsend.sysio.smtpcontent import CHUNK_BYTES, Content
from qsend.sysio.smtpsession import BURST, Session, Settings, Sweeper
from qsend.sysio.tlsclient import Peer, TlsClient

END = b"\r\n.\r\n"


class FullAtTheEnd(asyncio.Transport):
    """Takes everything, and wants a pause when the content has ended."""

    session: Session

    def __init__(self) -> None:
        super().__init__()
        self.wrote = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.wrote += data
        if self.wrote.endswith(END):
            self.session.pause_writing()

    def close(self) -> None:
        """Nothing to close."""

    abort = close


async def taken(content: Content) -> tuple[list[Outcome], bytes]:
    """The peer answers the dot before the loop has had another turn."""
    sweeper = Sweeper(asyncio.get_running_loop())
    tls = TlsClient(TlsControls(), lambda: b"")
    settings = Settings(helo=b"me", timeout_connect=9, timeout_remote=9, tls=tls)
    host = Host(address="127.0.0.1", preference=0, name=b"mx.example")
    session = Session(Peer(host=host, port=25, demand=Demand()), settings, sweeper)
    transport = FullAtTheEnd()
    transport.session = session
    session.connection_made(transport)
    for reply in (b"220 mx", b"250 mx"):
        session.data_received(reply + b"\r\n")
    await session.until_ready()
    ended: list[Outcome] = []
    envelope = Envelope(
        sender=b"a@x", recips=[b"b@y"], size=content.size, eight_bit=False
    )
    session.begin(envelope, content, lambda _session, outcome: ended.append(outcome))
    for reply in (b"250 s", b"250 r", b"354 go"):
        session.data_received(reply + b"\r\n")
    while not transport.wrote.endswith(END):
        await asyncio.sleep(0)
    session.data_received(b"250 ok\r\n")
    session.abort()
    session.connection_lost(None)
    return ended, bytes(transport.wrote)


@pytest.mark.parametrize("pieces", [1, BURST - 1, BURST, BURST + 1])
def test_answer_that_comes_with_the_last_bytes_counts(
    pieces: int, tmp_path: Path
) -> None:
    body = b"x" * 63 + b"\n"
    path = tmp_path / "message"
    path.write_bytes(body * (pieces * CHUNK_BYTES // len(body)))
    content = Content(os.open(path, os.O_RDONLY))
    try:
        [outcome], wrote = asyncio.run(taken(content))
    finally:
        content.close()
    assert outcome.verdict.letter is Letter.SUCCESS
    assert wrote.count(body[:-1] + b"\r\n") == pieces * CHUNK_BYTES // len(body)
