"""A real clean process behind two socketpairs, as start and send see it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from qsend.core.model import Account
from qsend.formats import frames
from qsend.formats.cleanwire import Answer, parse_answer
from qsend.formats.startwire import READY

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
"""For a machine that is busy with other tests; an answer takes milliseconds."""


class CleanProcess:
    """One clean; `start` and `send` are the other ends of its sockets."""

    def __init__(
        self,
        home: Path,
        account: Account,
        level: str = "full",
        before: Sequence[str] = (),
    ) -> None:
        """Start clean below `before` (a tracer's command line); wait until READY."""
        theirs, ours = [], []
        for _ in range(2):
            one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            one.settimeout(DEADLINE_S)
            ours.append(one)
            theirs.append(other)
        self.start, self.send = ours
        fds = [end.fileno() for end in theirs]
        words = [str(home), str(account.uid), str(account.gid), *map(str, fds), level]
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "tests.procs.run_clean", *words],
            pass_fds=fds,
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        for end in theirs:
            end.close()
        self.first = self.start.recv(frames.PACKET_MAX)

    def is_ready(self) -> bool:
        """Whether it said READY at its start (else it ended)."""
        return self.first == frames.frame(READY, b"")

    def ask(self, *requests: bytes) -> None:
        """Send request frames as one packet."""
        self.send.send(b"".join(requests))

    def answers(self, count: int) -> list[Answer]:
        """The next `count` answers, in order; fewer when clean ended."""
        found: list[Answer] = []
        while len(found) < count:
            try:
                packet = self.send.recv(frames.PACKET_MAX)
            except ConnectionResetError:
                break
            if not packet:
                break
            found += [parse_answer(kind, body) for kind, body in frames.split(packet)]
        return found

    def end(self) -> int:
        """Close both lines; its exit code."""
        self.start.close()
        self.send.close()
        return self.wait()

    def wait(self) -> int:
        """Its exit code, once it ends."""
        return self.process.wait(DEADLINE_S)

    def said(self) -> str:
        """What it wrote on descriptor 2; call it after `wait`."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@contextlib.contextmanager
def running(
    home: Path, account: Account, level: str = "full", before: Sequence[str] = ()
) -> Iterator[CleanProcess]:
    """A clean that is gone afterwards, however the test ends."""
    clean = CleanProcess(home, account, level, before)
    try:
        yield clean
    finally:
        clean.start.close()
        clean.send.close()
        try:
            clean.wait()
        except subprocess.TimeoutExpired:
            clean.process.kill()
            clean.process.wait()
            raise
        finally:
            assert clean.process.stderr is not None
            clean.process.stderr.close()
