"""The sinks that peers deliver to: our own, which records, and Debian's smtp-sink."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.errors import BenchError, Late
from bench.tree import ROOT, smtp_sink

__all__ = ["Arrival", "Sink", "running_sink", "smtp_sink"]

PORT = 25
_COUNTER = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class Arrival:
    """When (seconds since 1970) a recipient's copy was taken."""

    at: float
    recip: bytes


class Sink:
    """A running sink of our own; see sinkserver."""

    def __init__(self, process: subprocess.Popen[bytes], counter: mmap.mmap) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._counter = counter
        self.pid = process.pid
        self.port = int(self._stdout.readline())

    @property
    def count(self) -> int:
        """Recipients since the last `take`."""
        return int(_COUNTER.unpack_from(self._counter)[0])

    def latency(self, ms: float) -> None:
        """From now on the final dot is answered after so long."""
        self._command(b"latency %f" % ms)

    def take(self) -> list[Arrival]:
        """What arrived since the last time."""
        self._command(b"take")
        found = []
        while (line := self._stdout.readline()) != b"\n":
            if not line:
                raise BenchError("the sink has ended")
            at, *recips = line.split()
            found += [Arrival(float(at), recip) for recip in recips]
        return found

    def wait(self, count: int, timeout_s: float) -> None:
        """Until so many recipients had theirs. Raises: Late."""
        end = time.monotonic() + timeout_s
        while self.count < count:
            if time.monotonic() > end:
                raise Late(f"{self.count} of {count} arrived in {timeout_s} s")
            time.sleep(0.005)

    def _command(self, line: bytes) -> None:
        self._stdin.write(line + b"\n")
        self._stdin.flush()


@contextmanager
def running_sink(port: int = PORT) -> Iterator[Sink]:
    """Our sink at every address of this network; port 0 for any free one."""
    fd = os.memfd_create("counter")
    os.truncate(fd, _COUNTER.size)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.sinkserver", str(port), str(fd)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        pass_fds=[fd],
    )
    try:
        with mmap.mmap(fd, _COUNTER.size) as counter:
            yield Sink(process, counter)
    finally:
        os.close(fd)
        process.communicate()


def reachable(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
