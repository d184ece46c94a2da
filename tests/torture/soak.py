"""A long run: a mixed load for hours, counted to the last message, and flat.

Every entrance is at work and every kind of recipient: local, remote, programs, lists,
failures, deferrals. Controls are reread every few seconds and processes killed all the
time, but start, send, clean, enqueue and the listeners, which live as long as the run
and are what could grow.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from qsend.sysio import clock
from tests.torture import injector, kills, world
from tests.torture.kills import Killer
from tests.torture.ledger import Ledger, Line
from tests.torture.soakfigures import Figures
from tests.tree.harness import Tree

STEP = 32
"""Of the numbers of each injector, so that all its messages have one length."""
ENTRANCES = (0, 0, 0, 1, 5, 5, 5, 6, 6, 7, 7)
"""Those of world.ENTRANCES that need no program, by how often they are used."""
PROGRAMS = (2, 3, 4)
PROGRAM_EACH = 50
"""Messages of which one comes by a program."""
AHEAD = 3
"""Messages that an injector is asked for before its answers."""
FRESH_MAX = 16
"""Messages on their way to a first attempt, from which on no more are asked for."""
EACH_S = {"_reload": 5.0, "_sample": 5.0, "_kill": 20.0, "_flush": 60.0}
"""How often each is done. What is deferred is flushed, so that as much of it waits late
as early. Each of the MORTAL is killed every 80 s: start makes who ends within a minute
wait for up to another, and mail would wait with it."""
REFUSED_MAX = 0.01
"""Of all messages: while lookup is replaced, SMTP clients are told to come again."""
MORTAL = ("qmail-local", "qmail-remote", "qmail-lspawn", "qmail-lookup")
MEASURED = (("box",), ("far",))
"""Messages whose time from the log's first line of them to the last is measured."""
IDLE_S = 120.0
_INFO = re.compile(rb"info msg (\d+): bytes \d+ from <sender-(\d+)@")
_STARTING = re.compile(rb"starting delivery (\d+): msg (\d+) ")
_REPORT = re.compile(rb"delivery (\d+): (success|failure|deferral): ")
_END = re.compile(rb"end msg (\d+)$")


@dataclass(slots=True)
class Books:
    """What the log and the injectors said."""

    count: int
    ledger: Ledger = field(default_factory=lambda: Ledger(tells=False))
    figures: Figures = field(default_factory=Figures)
    counts: Counter[str] = field(default_factory=Counter)
    fresh: set[int] = field(default_factory=set)
    """Messages without a report so far."""
    _measured: dict[int, float] = field(default_factory=dict)
    _deliveries: dict[int, int] = field(default_factory=dict)

    @property
    def quarter(self) -> int:
        """Of the run, from 0 to 3."""
        return min(3, self.counts["answered"] * 4 // self.count)

    def read(self, line: Line) -> None:
        """The next line of the log."""
        self.ledger.read_line(line)
        text = line.text
        if text.startswith(b"new msg "):
            self.counts["taken up"] += 1
        elif found := _INFO.match(text):
            messid = int(found[1])
            self.fresh.add(messid)
            if injector.kinds_of(int(found[2])) in MEASURED:
                self._measured[messid] = line.at_mono
        elif found := _STARTING.match(text):
            self._deliveries[int(found[1])] = int(found[2])
        elif found := _REPORT.match(text):
            messid = self._deliveries.pop(int(found[1]), 0)
            self.fresh.discard(messid)
            self.counts[found[2].decode()] += 1
            if found[2] != b"success":
                self._measured.pop(messid, None)
        elif found := _END.match(text):
            self._note_end(line.at_mono, int(found[1]))
        elif text.startswith(b"reread controls"):
            self.counts["reloads"] += 1

    def _note_end(self, at_mono: float, messid: int) -> None:
        self.counts["ended"] += 1
        self.fresh.discard(messid)
        came_mono = self._measured.pop(messid, None)
        if came_mono is not None:
            took_ms = (at_mono - came_mono) * 1000
            self.figures.note("latency, ms", "one recipient", self.quarter, took_ms)


class Load:
    """The injectors of a run, which queue what they are asked for."""

    def __init__(self, tree: Tree, ports: dict[str, int], place: Path) -> None:
        answers = place / "answers"
        answers.touch()
        self._answers = answers.open("rb")
        firsts = [number for number in range(STEP) if number % 4 != 3]  # not 160 kB
        self._sources = {
            first: world.inject(tree, ports, which, answers, (first, STEP), "asked")
            for first, which in zip(firsts, (*ENTRANCES, *PROGRAMS), strict=False)
        }
        self._open = dict.fromkeys(self._sources, 0)
        self._programs = itertools.cycle(list(self._sources)[len(ENTRANCES) :])
        self._asked = self._by_program = 0

    def ask(self, most: int) -> None:
        """Ask for more, up to `most` in all."""
        for first in list(self._sources)[: len(ENTRANCES)]:
            wanted = min(AHEAD - self._open[first], most - self._asked)
            self._ask(first, max(0, wanted))
        if self._asked // PROGRAM_EACH > self._by_program and self._asked < most:
            first = next(self._programs)
            if not self._open[first]:
                self._by_program += 1
                self._ask(first, 1)

    def _ask(self, first: int, count: int) -> None:
        stdin = self._sources[first].stdin
        assert stdin is not None
        stdin.write(b"x" * count)
        stdin.flush()
        self._open[first] += count
        self._asked += count

    def answers(self) -> bytes:
        """What was answered since the last time, in whole lines."""
        found = self._answers.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._answers.seek(len(whole) - len(found), os.SEEK_CUR)
        for row in whole.splitlines():
            self._open[int(row.split()[0]) % STEP] -= 1
        return whole

    def end(self) -> None:
        """Nobody injects any more."""
        for source in self._sources.values():
            source.communicate(timeout=90)

    def close(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        for source in self._sources.values():
            source.kill()
            source.communicate()
        self._answers.close()


class Soak:
    """One run; `books` is what is known of it."""

    def __init__(self, tree: Tree, killer: Killer, load: Load, count: int) -> None:
        self.books = Books(count)
        self._tree = tree
        self._killer = killer
        self._load = load
        self._log = killer.logs[-1]
        self._began_mono = clock.mono()
        acts = (self._reload, self._sample, self._kill, self._flush)
        self._nexts = dict.fromkeys(acts, 0.0)

    def run(self, tell: Callable[[int], None]) -> None:
        """Until everything is answered; `tell` hears how much is."""
        counts = self.books.counts
        while counts["answered"] < self.books.count:
            if len(self.books.fresh) < FRESH_MAX:
                self._load.ask(self.books.count)
            self._turn()
            for act, next_mono in self._nexts.items():
                if clock.mono() >= next_mono:
                    self._nexts[act] = clock.mono() + EACH_S[act.__name__]
                    act()
                    tell(counts["answered"])
            assert self._killer.is_up()
        counts["seconds"] = round(clock.mono() - self._began_mono)

    def finish(self) -> None:
        """Have what was deferred tried again until nothing is left."""
        end_mono = clock.mono() + IDLE_S
        before = -1
        while kills.waiting(self._tree):
            if self.books.counts["ended"] > before:
                end_mono = clock.mono() + IDLE_S
                before = self.books.counts["ended"]
            assert clock.mono() < end_mono, kills.waiting(self._tree)[:20]
            self._tree.run("release", "all")
            self._tree.run("flush", "all")
            for _ in range(20):
                self._turn()
        kills.end(self._tree, self._killer)
        self._turn()
        self._collect()

    def _turn(self) -> None:
        answers = self._load.answers()
        self.books.ledger.read_answers(answers)
        self.books.counts["answered"] += answers.count(b"\n")
        self.books.counts["refused"] += answers.count(b" no\n")
        for line in self._log.take(0.05):
            self.books.read(line)

    def _reload(self) -> None:
        assert self._tree.process is not None
        self._tree.process.send_signal(signal.SIGHUP)

    def _flush(self) -> None:
        assert self._tree.process is not None
        self._tree.process.send_signal(signal.SIGALRM)

    def _sample(self) -> None:
        books = self.books
        waiting = books.counts["taken up"] - books.counts["ended"]
        books.figures.note("messages in the queue", "all", books.quarter, waiting)
        books.figures.sample(self._tree, books.quarter, books.counts["ended"])
        self._collect()

    def _kill(self) -> None:
        self._killer.strike_one(MORTAL)

    def _collect(self) -> None:
        for maildir, kinds in world.maildirs(self._tree).items():
            self.books.ledger.read_maildir(maildir, *kinds, removes=True)


def run(tree: Tree, place: Path, count: int, tell: Callable[[int], None]) -> Books:
    """Queue and deliver `count` messages; fails unless all are accounted for.

    Raises: AssertionError that tells what is wrong.
    """
    sink = world.Sink(random.Random(0))
    killer = Killer(tree, random.Random(0))
    try:
        with world.listening(sink) as port:
            ports = world.set_up(tree, port)
            killer.start()
            # Before that, the signals for start end it.
            assert killer.logs[-1].wait_said(rb"status: ", 1, 30), killer.logs[-1].lines
            load = Load(tree, ports, place)
            soak = Soak(tree, killer, load, count)
            try:
                soak.run(tell)
                load.end()
                soak.finish()
            finally:
                load.close()
    finally:
        killer.close()
    books = soak.books
    books.counts["kills"] = killer.kills.total()
    books.ledger.arrived.update(sink.arrived)
    books.ledger.faults += [f"{each} arrived mutilated" for each in sink.mutilated]
    books.ledger.check()
    assert books.counts["refused"] <= REFUSED_MAX * count + 10, books.counts
    return books
