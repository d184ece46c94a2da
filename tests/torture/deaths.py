"""kill -9 at every system call of one message's life, one call after the other.

strace is attached to one process of a running tree and kills it when it makes its
k-th call of a name; k goes up until the process survives the message. What is on the
disk then is what the calls before made, and start replaces the process. In a second
round every new process dies at its own k-th call too, so that recovery is cut off.
Source: strace(1), --inject=...:signal=KILL:when=K (counted for each thread).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qsend.sysio import clock
from tests.torture import injector, kills, world
from tests.torture.kills import Killer, waiting
from tests.torture.ledger import Ledger
from tests.tree.harness import Tree, until

CALLS = (
    "openat", "write", "pwrite64", "fsync", "syncfs", "linkat", "unlinkat",
    "utimensat", "ftruncate", "renameat", "mkdirat", "close",
)  # fmt: skip
VICTIMS = (
    "qmail-queue", "qmail-send", "qmail-clean", "qmail-lspawn", "qmail-local",
    "qmail-remote",
)  # fmt: skip
WAYS = (6, 1, 9)
"""Messages by their number modulo all ways: with failures on both channels, with one
remote recipient, a list."""
RECOVERY = ("openat", "unlinkat", "fsync", "linkat", "write")
MOST = 60
"""No process makes more calls of a name for one message."""
WAIT_S = 30.0
QUIET_S = 2.0
"""A tree that says nothing for so long has deferred what is left."""
PATIENCE = 3
"""Deaths after which start's brake takes longer than a new tree."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where a process is to die; `again` in its recovery too."""

    title: str
    call: str
    at: int
    way: int
    again: bool = False


class Deaths:
    """A tree in which processes die at given calls."""

    def __init__(self, tree: Tree, killer: Killer, place: Path) -> None:
        """`killer` has started the tree; `place` is for what strace writes."""
        self.deaths: Counter[str] = Counter()
        self.accepted: set[int] = set()
        self._tree = tree
        self._killer = killer
        self._log = place / "strace"
        self._round = self._since_start = 0

    def strike(self, point: Point) -> bool:
        """Let one message meet a death; whether the process died."""
        pid = self._victim(point.title)
        number = self._next(point.way)
        with _attached(pid, point.call, point.at, self._log) as strace:
            home = str(self._tree.home)
            if injector.put(home, "library", number):
                self.accepted.add(number)
            died = self._is_dead(strace)
        if died:
            self.deaths[f"{point.title} {point.call}"] += 1
            if point.again:
                self._strike_recovery(point)
            self._renew()
        self.settle()
        return died

    def _renew(self) -> None:
        """Kill the tree from time to time: start waits longer after each death."""
        self._since_start += 1
        if self._since_start == PATIENCE:
            self._since_start = 0
            self._killer.strike_start()
            self._killer.start()

    def settle(self) -> None:
        """Have everything delivered, by a new tree when the old one gave up."""
        end_mono = clock.mono() + 2 * WAIT_S
        while True:
            if not self._killer.is_up():
                self._killer.start()
            if not waiting(self._tree):
                return
            assert clock.mono() < end_mono, waiting(self._tree)
            self._tree.run("release", "all", check=False)
            self._tree.run("flush", "all", check=False)
            log = self._killer.logs[-1]
            log.wait_for(len(log.lines) + 20, 0.1)

    def _strike_recovery(self, point: Point) -> None:
        """The next process, whatever it is, dies at the same call of its own."""
        if not self._killer.is_up():
            return
        assert self._tree.process is not None
        start = self._tree.process.pid
        call = RECOVERY[self._round % len(RECOVERY)]
        with _attached(start, call, 1 + point.at % 8, self._log):
            for pid in self._tree.pids("qmail-send"):
                os.kill(pid, signal.SIGKILL)
            end_mono = clock.mono() + 3
            while b"killed by SIGKILL" not in self._log.read_bytes():
                if clock.mono() > end_mono or not self._killer.is_up():
                    return
                self._killer.pause()
        self.deaths[f"recovery {call}"] += 1

    def _victim(self, title: str) -> int:
        """The process to die; a message brings forth the ones for recipients."""
        found: list[int] = []

        def is_there() -> bool:
            if not self._killer.is_up():
                self._killer.start()
            found[:] = self._tree.pids(title)
            if not found and title == "qmail-local":
                number = self._next(0)
                if injector.put(str(self._tree.home), "library", number):
                    self.accepted.add(number)
            return bool(found)

        until(is_there)
        return found[0]

    def _next(self, way: int) -> int:
        """The number of a new message with recipients of this way."""
        self._round += 1
        return self._round * len(injector.WAYS) + way

    def _is_dead(self, strace: subprocess.Popen[bytes]) -> bool:
        """Whether the process died before all was delivered, or the tree was idle."""
        log = self._killer.logs[-1]
        quiet_mono = clock.mono() + QUIET_S
        while strace.poll() is None and waiting(self._tree):
            if log.wait_for(len(log.lines) + 1, 0.02):
                quiet_mono = clock.mono() + QUIET_S
            if clock.mono() > quiet_mono:
                break
        return b"killed by SIGKILL" in self._log.read_bytes()


class _attached:
    """strace on a process and its threads and children, until the end of the block."""

    def __init__(self, pid: int, call: str, at: int, log: Path) -> None:
        log.write_bytes(b"")
        inject = f"inject={call}:signal=KILL:when={at}"
        self._strace = subprocess.Popen(
            [
                *("strace", "-f", "-p", str(pid), "-o", str(log)),
                *("-e", f"trace={call}", "-e", inject),
            ],
            stderr=subprocess.DEVNULL,
        )
        self._pid = pid

    def __enter__(self) -> subprocess.Popen[bytes]:
        until(self._is_attached)
        return self._strace

    def __exit__(self, *_: object) -> None:
        self._strace.terminate()
        try:
            self._strace.wait(1)
        except subprocess.TimeoutExpired:
            # It may miss a signal while it waits; the kernel lets go of what it held.
            self._strace.kill()
            self._strace.wait(10)

    def _is_attached(self) -> bool:
        if self._strace.poll() is not None:
            return True
        try:
            tasks = Path(f"/proc/{self._pid}/task").iterdir()
            return all(
                f"TracerPid:\t{self._strace.pid}\n" in (each / "status").read_text()
                for each in tasks
            )
        except (FileNotFoundError, ProcessLookupError):
            return True


def points(chance: random.Random, part: int, parts: int) -> Iterator[Iterator[Point]]:
    """The points of a kind, call and message in their order; every `parts`-th of them.

    All parts from 0 on are all points.
    """
    every = [(title, call, way) for title in VICTIMS for call in CALLS for way in WAYS]
    random.Random(parts).shuffle(every)
    for title, call, way in every[part::parts]:
        yield (
            Point(title, call, at, way, again=chance.random() < 0.2)
            for at in range(1, MOST)
        )


def run(
    tree: Tree,
    chance: random.Random,
    place: Path,
    part: int,
    parts: int,
) -> tuple[Counter[str], Ledger]:
    """Kill at a part of all points; how often where, and the books."""
    sink = world.Sink(chance)
    killer = Killer(tree, chance)
    try:
        with world.listening(sink) as port:
            world.set_up(tree, port)
            killer.start()
            deaths = Deaths(tree, killer, place)
            for series in points(chance, part, parts):
                for point in series:
                    if not deaths.strike(point):
                        break
            kills.finish(tree, killer)
    finally:
        killer.close()
    ledger = Ledger()
    ledger.accepted.update(deaths.accepted)
    for log in killer.logs:
        ledger.read_log(log.lines)
    ledger.arrived.update(sink.arrived)
    ledger.faults += [f"{each} arrived mutilated" for each in sink.mutilated]
    for maildir, kinds in world.maildirs(tree).items():
        ledger.read_maildir(maildir, *kinds)
    return deaths.deaths, ledger
