"""kill -9 of every kind of process at any moment, under load, counted by the ledger."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from qsend.sysio import clock
from tests.torture import world
from tests.torture.ledger import Ledger, Log, follow
from tests.tree.harness import Tree, until

TITLES = tuple(
    f"qmail-{kind}"
    for kind in (
        "start", "send", "clean", "queue", "lookup", "lspawn", "local", "remote",
        "smtpd", "qmtpd",
    )
)  # fmt: skip
STALL_S = 60
"""The queue must become shorter in this time, until it is empty."""
SWEEP_ALL = "from qsend.sysio import sweeper; sweeper.OSSIFIED_S = -10"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How often each kind was killed, and the books."""

    kills: Counter[str]
    ledger: Ledger


class Killer:
    """A tree that is killed piece by piece and started again."""

    def __init__(self, tree: Tree, chance: random.Random, patch: str = "") -> None:
        """`patch` is Python that each start runs first."""
        self.logs: list[Log] = []
        self.kills: Counter[str] = Counter()
        self._tree = tree
        self._chance = chance
        self._patch = patch
        self._seen: dict[int, psutil.Process] = {}

    def start(self) -> None:
        """Start the tree; what is left of the one before may still hold the lock."""
        end_mono = clock.mono() + 30
        while True:
            self._tree.start(until=b"", patch=self._patch)
            assert self._tree.process is not None
            log = follow(self._tree)
            self.logs.append(log)
            log.wait_for(1, 30)
            if not log.lines or b"already running" not in log.lines[0].text:
                return
            assert self._tree.process.wait(10) == 111
            assert clock.mono() < end_mono

    def strike(self, most: int) -> None:
        """Kill up to `most` processes at the same moment, the rarest kinds first."""
        victims = self._victims()
        if not victims:
            return
        self._chance.shuffle(victims)
        victims.sort(key=lambda found: self.kills[found[0]])
        # Not start: the tree is to go on.
        for title, process in victims[: self._chance.randint(1, most)]:
            self._kill(title, process)

    def strike_one(self, titles: Collection[str]) -> None:
        """Kill one process of these titles, of those that were killed least."""
        victims = [each for each in self._victims() if each[0] in titles]
        if victims:
            least = min(self.kills[title] for title, _ in victims)
            self._kill(*next(each for each in victims if self.kills[each[0]] == least))

    def strike_start(self) -> None:
        """Kill the root of the tree."""
        assert self._tree.process is not None
        self._seen.update((each.pid, each) for each in self._tree.family())
        if self._tree.process.poll() is None:
            self._kill("qmail-start", psutil.Process(self._tree.process.pid))
        self._tree.process.wait(10)

    def pause(self) -> None:
        """Let the tree work a while: some lines of log, or a third of a second."""
        log = self.logs[-1]
        log.wait_for(len(log.lines) + self._chance.randint(1, 200), 0.33)

    def is_up(self) -> bool:
        """Whether there is still a start."""
        assert self._tree.process is not None
        return self._tree.process.poll() is None

    def close(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        for process in self._seen.values():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def _victims(self) -> list[tuple[str, psutil.Process]]:
        found = []
        for process in self._tree.family()[1:]:
            self._seen[process.pid] = process
            try:
                title = (process.cmdline() or [""])[0].removesuffix(": qsend")
            except psutil.NoSuchProcess:
                continue
            if title in TITLES and title != "qmail-start":
                found.append((title, process))
        return found

    def _kill(self, title: str, process: psutil.Process) -> None:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            return
        self.kills[title] += 1


def run(tree: Tree, kills: int, chance: random.Random, place: Path) -> Outcome:
    """Kill that many processes while every entrance is at work; count the mail.

    Args:
        place: a directory for the answers of the injectors.
    Raises: AssertionError that tells what is wrong.
    """
    sink = world.Sink(chance)
    killer = Killer(tree, chance)
    answers = place / "answers"
    try:
        with world.listening(sink) as port:
            ports = world.set_up(tree, port)
            killer.start()
            sources = [
                world.inject(tree, ports, n, answers, (n, len(world.ENTRANCES)))
                for n in range(len(world.ENTRANCES))
            ]
            while killer.kills.total() < kills:
                for _ in range(chance.randint(4, 8)):
                    killer.pause()
                    killer.strike(most=3)
                killer.strike_start()
                killer.start()
                tree.run("flush", "all", check=False)
            for source in sources:
                source.communicate(timeout=90)
            finish(tree, killer)
    finally:
        killer.close()
    ledger = Ledger()
    ledger.read_answers(answers.read_bytes())
    for log in killer.logs:
        ledger.read_log(log.lines)
    ledger.arrived.update(sink.arrived)
    ledger.faults += [f"{each} arrived mutilated" for each in sink.mutilated]
    for maildir, kinds in world.maildirs(tree).items():
        ledger.read_maildir(maildir, *kinds)
    return Outcome(killer.kills, ledger)


def finish(tree: Tree, killer: Killer) -> None:
    """Have everything delivered, whatever was deferred or held; end the tree."""
    log = killer.logs[-1]
    least, end_mono = 1 << 30, 0.0
    while left := len(waiting(tree)):
        if left < least:
            least, end_mono = left, clock.mono() + STALL_S
        assert clock.mono() < end_mono, waiting(tree)
        tree.run("release", "all")
        tree.run("flush", "all")
        log.wait_for(len(log.lines) + 100, 1)
    end(tree, killer)


def end(tree: Tree, killer: Killer) -> None:
    """TERM; nothing of any life of the tree goes on."""
    assert tree.process is not None
    tree.process.terminate()
    assert tree.process.wait(30) == 0
    for each in killer.logs:
        assert each.wait_over(30), "something of an ended tree goes on"


def waiting(tree: Tree) -> list[Path]:
    """What is in the queue: envelopes and preprocessed messages."""
    names = ("info", "todo", "local", "remote", "bounce")
    return [path for path in tree.queue_files() if set(names) & set(path.parts)]


def sweep(tree: Tree) -> int:
    """What injections and removals left when they were killed goes with its age.

    Returns: how many files that was.
    """
    left = tree.queue_files()
    assert all({"mess", "intd"} & set(path.parts) for path in left), left
    tree.start(patch=SWEEP_ALL)
    until(lambda: not tree.queue_files())
    assert tree.stop() == 0
    return len(left)
