"""A mail filter by script, for what libmilter would never do.

The script gets each command's letter and bytes, and gives what is sent back: bytes,
None to hang up, or STALL. It is not asked about macros, nor about what has no answer.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

STALL = b"stall"
Script = Callable[[bytes, bytes], bytes | None]


def packet(letter: bytes, data: bytes = b"") -> bytes:
    return struct.pack("!L", len(data) + 1) + letter + data


def terms(version: int = 6, actions: int = 0x1FF, steps: int = 0) -> bytes:
    return packet(b"O", struct.pack("!LLL", version, actions, steps))


CONTINUE = packet(b"c")


class FakeMilter:
    """The server."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heard: list[bytes] = []
        """Letters, those of macros left out."""
        self.bodies: list[bytes] = []
        self.clients = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.clients += 1
        self._writers.append(writer)
        try:
            while True:
                (length,) = struct.unpack("!L", await reader.readexactly(4))
                body = await reader.readexactly(length)
                if not self._answer(body[:1], body[1:], writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, letter: bytes, data: bytes, writer: asyncio.StreamWriter) -> bool:
        if letter == b"D":
            return True
        self.heard.append(letter)
        if letter == b"B":
            self.bodies.append(data)
        if letter in b"AKQ":
            return letter != b"Q"
        answer = self.script(letter, data)
        if answer is None:
            return False
        if answer is not STALL:
            writer.write(answer)
        return True

    def drop(self) -> None:
        """Hang up on all clients."""
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def fake_milter(path: Path, script: Script) -> AsyncIterator[FakeMilter]:
    """One that listens at `path`."""
    made = FakeMilter(script)
    server = await asyncio.start_unix_server(made.serve, str(path))
    try:
        yield made
    finally:
        server.close()
        made.drop()
        path.unlink()
