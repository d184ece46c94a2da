"""kill -9 at every system call of one message's life, one call after the other.

A process of a running tree dies at its k-th call on the queue or on mail; k goes up
until the process survives the message. What is on the disk then is what the calls
before made, and start replaces the process. Each death comes again with a second one,
at another call of the tree's recovery each time. Nothing is flushed and no tree is
started anew: the queue must become empty by itself.
"""

from __future__ import annotations

import functools
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qsend.sysio import clock
from qsend.sysio.controlclient import ControlClient
from tests.torture import deathpoints, injector, kills, world
from tests.torture.deathpoints import PAGE, TITLES, Board
from tests.torture.kills import Killer
from tests.torture.ledger import Ledger
from tests.tree.harness import Tree

WAYS = (6, 1, 9, 10)
"""Messages by their number modulo all ways: with failures on both channels, with one
remote recipient, a list, with a deferral."""
START, ROOT = "qmail-start", "root"
"""Who works the queue without a tree: start while it begins, and the child that writes
it for root when nobody listens."""
OTHER = TITLES[-1]
SERIES: tuple[tuple[str, int], ...] = (
    *((title, way) for title in TITLES[1:-1] for way in WAYS),
    (START, 6),
    (ROOT, 6),
)
"""(who dies, the way of the messages)."""
LINES = 2
"""All messages have 100 lines, so that each makes the same calls."""
MOST = 1000
"""No process makes so many calls for one message."""
STEP = 7919
"""Strides through the calls of recovery; a prime."""
WAIT_S = 30.0
DIRECT = """
import sys
from qsend.sysio import mailqueue
text, sender, *recips = (each.encode() for each in sys.argv[1:])
mailqueue.inject(HOME, [text], sender, recips, {})
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where how many died, the first and the second time, and the books."""

    deaths: Counter[str]
    again: Counter[str]
    ledger: Ledger


class Deaths:
    """A tree in which processes die at given calls."""

    def __init__(self, tree: Tree, place: Path) -> None:
        """`place` is for what the tree and the test share."""
        self.deaths: Counter[str] = Counter()
        self.again: Counter[str] = Counter()
        self.accepted: set[int] = set()
        path = place / "board"
        path.write_bytes(bytes(PAGE))
        patch = deathpoints.text(str(path), str(tree.home))
        self.killer = Killer(tree, random.Random(0), patch)
        self.board = Board(str(path))
        self._patch = patch
        self._tree = tree
        self._round = 0

    def run(self, title: str, way: int, repeats: int) -> None:
        """Let `title` die at each of its calls for such a message.

        Each death comes once alone and `repeats` times with another in recovery.
        """
        strike = functools.partial(
            {START: self._strike_start, ROOT: self._strike_root}.get(
                title, functools.partial(self._strike, title)
            ),
            way,
        )
        if title not in (START, ROOT):
            self.killer.start()
        for at in range(1, MOST):
            strike(at)
            if not self._note():
                break
            self._repeat(strike, at, repeats)
        else:
            raise AssertionError(f"{title} never survived a message")
        if not self.killer.logs or not self.killer.is_up():
            self.killer.start()
        self._wait_over()

    def _repeat(self, strike: Callable[..., None], at: int, repeats: int) -> None:
        """The same death, and another while the tree recovers."""
        calls = self.board.recovery_calls
        for number in range(repeats if calls else 0):
            strike(at, 1 + (at + number * MOST) * STEP % calls)
            self._note()

    def _note(self) -> bool:
        """Count the deaths of one strike; False for none."""
        self.board.disarm()
        found = [" ".join(each) for each in self.board.deaths()]
        self.deaths.update(found[:1])
        self.again.update(found[1:])
        return bool(found)

    def _strike(self, title: str, way: int, at: int, again_at: int = 0) -> None:
        """Have a message taken and delivered while a process of the tree dies."""
        self.board.arm(title, at, again_at)
        number = self._next(way)
        if injector.put(str(self._tree.home), "library", number):
            self.accepted.add(number)
        self._wait_over()

    def _strike_start(self, way: int, at: int, again_at: int = 0) -> None:
        """start dies while it begins; the next one finds what that left."""
        number = self._next(way)
        if injector.put(str(self._tree.home), "library", number):
            self.accepted.add(number)
        self.board.arm(START, at, again_at)
        self.killer.start()
        if not self._wait_start():
            self.killer.start()
            if not self._wait_start():
                self.killer.start()
        self._wait_over()
        assert self._tree.process is not None
        self._tree.process.terminate()
        # It may have lived until now, and die while it ends.
        assert self._tree.process.wait(WAIT_S) in (0, -signal.SIGKILL)

    def _wait_start(self) -> bool:
        """Whether start lives to have its children."""
        end_mono = clock.mono() + WAIT_S
        log = self.killer.logs[-1]
        while self.killer.is_up():
            assert clock.mono() < end_mono
            if any(line.text.startswith(b"status: ") for line in log.lines):
                return True
            log.wait_for(len(log.lines) + 1, 0.01)
        return False

    def _strike_root(self, way: int, at: int, again_at: int = 0) -> None:
        """root's own qmail-queue dies; nobody works the queue."""
        number = self._next(way)
        names = [injector.address(each, number) for each in injector.kinds_of(number)]
        self.board.arm(OTHER, at)
        done = subprocess.run(
            [
                *(str(self._tree.installation.python), "-c", self._patch + DIRECT),
                injector.content(number).decode(),
                *(injector.address("sender", number), *names),
            ],
            cwd="/",
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0 or self.board.deaths(), done.stderr
        if done.returncode == 0:
            self.accepted.add(number)

    def _next(self, way: int) -> int:
        """The number of a new message with recipients of this way, LINES long."""
        while True:
            self._round += 1
            if self._round % len(injector.WAYS) == way and self._round % 4 == LINES:
                return self._round

    def _wait_over(self) -> None:
        """Wait until the queue is empty and who died is replaced."""
        end_mono = clock.mono() + WAIT_S
        log = self.killer.logs[-1]
        began = seen = len(log.lines)
        while not self._is_over():
            assert self.killer.is_up(), self._story(began)
            assert clock.mono() < end_mono, self._story(began)
            log.wait_for(seen + 1, 0.02)
            news = log.lines[seen:]
            seen += len(news)
            if any(b" is held: " in line.text for line in news):
                self._release()

    def _is_over(self) -> bool:
        return not kills.waiting(self._tree) and self.board.is_replaced()

    def _release(self) -> None:
        """A message is held that met two deaths of remote: the operator has looked."""
        client = ControlClient(str(self._tree.home))
        try:
            client.ask_one("release", what="all")
        finally:
            client.close()

    def _story(self, seen: int) -> str:
        lines = [line.text.decode() for line in self.killer.logs[-1].lines[seen:]]
        left = [str(each) for each in kills.waiting(self._tree)]
        return "\n".join([*lines, *left, str(self.board.deaths())])


def run(tree: Tree, place: Path, title: str, way: int, repeats: int = 1) -> Outcome:
    """Kill at all points of one series; where, and the books."""
    sink = world.Sink(random.Random(0))
    deaths = Deaths(tree, place)
    try:
        with world.listening(sink) as port:
            world.set_up(tree, port, entrances=())
            deaths.run(title, way, repeats)
            kills.end(tree, deaths.killer)
    finally:
        deaths.killer.close()
    ledger = Ledger()
    ledger.accepted.update(deaths.accepted)
    for log in deaths.killer.logs:
        ledger.read_log(log.lines)
    ledger.arrived.update(sink.arrived)
    ledger.faults += [f"{each} arrived mutilated" for each in sink.mutilated]
    for maildir, kinds in world.maildirs(tree).items():
        ledger.read_maildir(maildir, *kinds)
    return Outcome(deaths.deaths, deaths.again, ledger)
