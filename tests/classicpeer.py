"""A stand-in for qmail-send that drives a classic spawner over pipes.

with FakeSend([sys.executable, "-c", SCRIPT], cwd=..., env=...) as send:
    assert send.start_byte == 120
    send.command(3, b"20/457", b"s@h", b"r@h")
    delnum, letter, text = send.report()
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from qsend.formats.classic import Command, render_command
from qsend.sysio import clock

DEADLINE_S = 20.0


class FakeSend:
    """Starts a spawner, asks for deliveries, reads reports; ends it on exit."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        has_slots: bool = True,
    ) -> None:
        """`has_slots`: the program begins with the byte that says how many."""
        self._has_slots = has_slots
        self._argv = argv
        self._cwd = cwd
        self._env = env
        self._unread = b""

    def __enter__(self) -> FakeSend:
        self.process = subprocess.Popen(
            self._argv,
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.to_spawner = self.process.stdin
        self.from_spawner = self.process.stdout
        self.start_byte = self.read(1)[0] if self._has_slots else 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None and kind is not None:
            self.process.kill()
        for pipe in (self.to_spawner, self.from_spawner):
            if not pipe.closed:
                pipe.close()
        self.process.wait(DEADLINE_S)

    def write(self, data: bytes) -> None:
        while data:
            written = self.to_spawner.write(data)
            assert written is not None
            data = data[written:]

    def command(self, delnum: int, path: bytes, sender: bytes, recip: bytes) -> None:
        self.write(
            render_command(
                Command(delnum=delnum, path=path, sender=sender, recip=recip)
            )
        )

    def report(self) -> tuple[int, bytes, bytes]:
        """(slot, letter, text) of the next report, of any length."""
        delnum = self.read(1)[0]
        text = b""
        while (byte := self.read(1)) != b"\0":
            text += byte
        return delnum, text[:1], text[1:]

    def is_silent(self) -> bool:
        """Whether nothing has arrived that was not read yet."""
        ready, _, _ = select.select([self.from_spawner], [], [], 0)
        return not self._unread and not ready

    def finish(self) -> int:
        """End the commands; the exit code once the spawner has ended."""
        self.to_spawner.close()
        return self.process.wait(DEADLINE_S)

    def read(self, count: int) -> bytes:
        """So many bytes of what it wrote."""
        end = clock.mono() + DEADLINE_S
        while len(self._unread) < count:
            left = max(0.0, end - clock.mono())
            ready, _, _ = select.select([self.from_spawner], [], [], left)
            piece = os.read(self.from_spawner.fileno(), 65536) if ready else b""
            assert piece, f"no report; exit code {self.process.poll()}"
            self._unread += piece
        data, self._unread = self._unread[:count], self._unread[count:]
        return data
