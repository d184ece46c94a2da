"""The conservation of mail: what was accepted was delivered or returned, none twice
without a reason.

    ledger = Ledger()
    ledger.read_log(lines)            # of each `qsend start`, in their order
    ledger.read_maildir(path, "box", "prog")
    ledger.check()

The messages are those of `injector`: a number and the kinds of its recipients. A
pair (number, kind) may be delivered once more for each of its attempts that was in
flight when its process was killed: one without a report, one reported as crashed,
or one whose success was not yet marked when send ended.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from qsend.sysio import clock
from tests.torture.injector import BECOMES, RETURNED, body, kinds_of
from tests.tree.harness import Tree

UNMARKED_S = 2.5
"""A message that is delivered straight from todo may be unmarked for a second, and
then for as long as its files take to be written."""
MARKING_S = 0.5
"""A preprocessed one is marked in the turn that says so; a busy disk takes time."""
MARKED_S = 30.0
"""What was delivered so long ago is marked, whatever becomes of its message."""
Pair = tuple[int, str]

_INFO = re.compile(rb"info msg (\d+): bytes \d+ from <(?:sender-(\d+)@)?")
_STARTING = re.compile(rb"starting delivery (\d+): msg (\d+) to \w+ ([a-z0-9]+)-(\d+)@")
_REPORT = re.compile(rb"delivery (\d+): (success|deferral|failure): (.*)")
_END = re.compile(rb"end msg (\d+)$")
_ABOUT = re.compile(rb"(?:end|bounce) msg (\d+)")
_DEATH = re.compile(
    # A send that is killed while it ends because clean has ended is not told of.
    rb"warning: lost qmail-(send|clean) \(|alert: oh no! lost qmail-clean|status: exit"
)
_CRASHED = b"delivery_process_"
_NAMED = re.compile(rb"^<([a-z]+)-(\d+)@", re.MULTILINE)
_DELIVERED_TO = re.compile(rb"^Delivered-To: ([a-z0-9]+)-(\d+)@", re.MULTILINE)
_EXPECTED_ALERT = re.compile(
    rb"alert: (message \d+ is held: its delivery crashed twice"
    rb"|oh no! lost qmail-clean connection! dying\.\.\."
    rb"|cannot start: \S+ ended before it was ready, again and again; giving up"
    rb"|cannot start: qmail-send is already running)$"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log, and when it was read."""

    at_mono: float
    text: bytes


class Log:
    """The log of one `qsend start`, read by a thread until all have let it go."""

    def __init__(self, fd: int) -> None:
        """Read `fd` and close it at its end."""
        self.lines: list[Line] = []
        self.is_over = False
        self._fd = fd
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, count: int, wait_s: float) -> bool:
        """Whether there are `count` lines, or the log is over, before the time is."""
        with self._news:
            return self._news.wait_for(
                lambda: self.is_over or len(self.lines) >= count, wait_s
            )

    def take(self, wait_s: float) -> list[Line]:
        """The lines since the last time, forgotten here; waits for the first."""
        with self._news:
            self._news.wait_for(lambda: self.is_over or self.lines, wait_s)
            taken, self.lines = self.lines, []
            return taken

    def wait_said(self, pattern: bytes, count: int, wait_s: float) -> bool:
        """Whether so many lines match before the time or the log is over."""
        wanted = re.compile(pattern)
        seen = found = 0

        def enough() -> bool:
            nonlocal seen, found
            found += sum(bool(wanted.match(each.text)) for each in self.lines[seen:])
            seen = len(self.lines)
            return found >= count

        with self._news:
            self._news.wait_for(lambda: enough() or self.is_over, wait_s)
            return found >= count

    def wait_over(self, wait_s: float) -> bool:
        """Whether the last process that writes it ended before the time was over."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _read(self) -> None:
        rest = b""
        while data := os.read(self._fd, 65536):
            now_mono = clock.mono()
            *whole, rest = (rest + data).split(b"\n")
            with self._news:
                self.lines += [Line(now_mono, text) for text in whole]
                self._news.notify_all()
        os.close(self._fd)
        with self._news:
            self.is_over = True
            self._news.notify_all()


def follow(tree: Tree) -> Log:
    """Read the log of a tree, started with `until=b""`, from now on."""
    assert tree.process is not None
    stdout = tree.process.stdout
    assert stdout is not None
    log = Log(os.dup(stdout.fileno()))
    stdout.close()
    return log


@dataclass(slots=True)
class _Life:
    """What one send process had going on, as its log says."""

    running: dict[int, tuple[Pair, int]] = field(default_factory=dict)
    """(pair, message) by delivery."""
    settled: dict[int, list[tuple[float, Pair]]] = field(default_factory=dict)
    """By message (when, pair) of what was delivered, and maybe not marked."""
    fresh: set[int] = field(default_factory=set)
    """Messages it read from todo."""


class Ledger:
    """What was accepted, what arrived, and what was in flight at a kill."""

    def __init__(self, *, tells: bool = True) -> None:
        """`tells`: keep all that `story` needs, which is every line."""
        self.accepted: set[int] = set()
        self.arrived: Counter[Pair] = Counter()
        self.in_flight: Counter[Pair] = Counter()
        """How often a pair may have arrived once more."""
        self.requeued: Counter[int] = Counter()
        """How often a bounce may have been queued once more."""
        self.attempts = 0
        self.faults: list[str] = []
        self._owners: dict[int, int] = {}
        self._failed: set[int] = set()
        self._tells = tells
        self._history: list[tuple[int | None, Line]] = []
        self._life = _Life()

    # what was accepted

    def read_answers(self, answers: bytes) -> None:
        """The output of an injector."""
        for row in answers.splitlines():
            number, word = row.split()
            if word == b"yes":
                self.accepted.add(int(number))

    # what was in flight

    def read_log(self, lines: Iterable[Line]) -> None:
        """The whole log of one `qsend start`."""
        at_mono = 0.0
        for line in lines:
            at_mono = line.at_mono
            self.read_line(line)
        self._end_life(at_mono)

    def read_line(self, line: Line) -> None:
        """The next line of a log."""
        text = line.text
        if self._tells:
            self._remember(line)
        if found := _INFO.match(text):
            self._note_message(int(found[1]), found[2])
        elif found := _STARTING.match(text):
            self.attempts += 1
            pair = int(found[4]), found[3].decode()
            self._life.running[int(found[1])] = pair, int(found[2])
            if pair[1] != "sender":
                self._owners[int(found[2])] = pair[0]
        elif found := _REPORT.match(text):
            self._note_report(line.at_mono, int(found[1]), found[2], found[3])
        elif found := _END.match(text):
            self._note_end(line.at_mono, int(found[1]))
        elif _DEATH.match(text):
            self._end_life(line.at_mono)
        elif text.startswith(b"warning: lost qmail-queue"):
            self.requeued.update(self._failed)
        if text.startswith(b"alert: ") and not _EXPECTED_ALERT.match(text):
            self.faults.append(f"unexpected: {text!r}")

    def story(self, number: int) -> str:
        """What the logs say of a message, and of processes that were lost."""
        told = [each for who, each in self._history if who in (number, None)]
        return "\n".join(f"{line.at_mono:.3f} {line.text.decode()}" for line in told)

    def _remember(self, line: Line) -> None:
        number: int | None = -1
        if found := _INFO.match(line.text):
            number = int(found[2] or -1)
        elif found := _STARTING.match(line.text):
            number = int(found[4])
        elif found := _REPORT.match(line.text):
            number = self._life.running.get(int(found[1]), ((-1, ""), 0))[0][0]
        elif found := _ABOUT.match(line.text):
            number = self._owners.get(int(found[1]), -1)
        elif b"lost" in line.text or _DEATH.match(line.text):
            number = None
        self._history.append((number, line))

    def _note_message(self, messid: int, number: bytes | None) -> None:
        self._life.fresh.add(messid)
        self._owners[messid] = -1 if number is None else int(number)
        if number is not None:
            # It is in the queue: whoever injected it may have been told nothing.
            self.accepted.add(int(number))

    def _note_report(
        self, at_mono: float, delid: int, word: bytes, text: bytes
    ) -> None:
        known = self._life.running.pop(delid, None)
        if known is None:
            return
        pair, messid = known
        if word == b"deferral":
            if _CRASHED in text:
                self.in_flight[pair] += 1
            else:
                # The program may have queued its message before it failed.
                for kind in BECOMES.get(pair[1], ()):
                    self.in_flight[pair[0], kind] += 1
            return
        if word == b"failure":
            self._failed.add(pair[0])
            if pair[1] not in RETURNED:
                self.faults.append(f"{pair} failed: {text!r}")
        settled = self._life.settled
        entry = settled.pop(messid, [])
        settled[messid] = [*entry, (at_mono, pair)]
        while at_mono - settled[oldest := next(iter(settled))][-1][0] > MARKED_S:
            del settled[oldest]

    def _note_end(self, at_mono: float, messid: int) -> None:
        """Nothing is left to mark; only the message itself is still to be removed."""
        self._failed.discard(self._owners.get(messid, -1))
        self._life.fresh.discard(messid)
        if entry := self._life.settled.pop(messid, []):
            self._life.settled[messid] = [(at_mono, pair) for _, pair in entry]

    def _end_life(self, at_mono: float) -> None:
        life, self._life = self._life, _Life()
        self.in_flight.update(pair for pair, _ in life.running.values())
        for messid, entry in life.settled.items():
            within_s = UNMARKED_S if messid in life.fresh else MARKING_S
            for settled_mono, pair in entry:
                if at_mono - settled_mono <= within_s:
                    self.in_flight[pair] += 1
        self.requeued.update(self._failed)

    # what arrived

    def read_maildir(self, maildir: Path, *kinds: str, removes: bool = False) -> None:
        """Every message delivered to a Maildir that takes recipients of `kinds`."""
        for path in sorted((maildir / "new").iterdir()):
            message = path.read_bytes()
            found = _DELIVERED_TO.search(message)
            assert found, path
            kind, number = found[1].decode(), int(found[2])
            self.arrived[number, kind] += 1
            if kind not in kinds:
                self.faults.append(f"{kind}-{number} in {maildir}")
            if kind == "sender":
                self._read_bounce(number, message)
            elif not message.endswith(body(number)):
                self.faults.append(f"{kind}-{number} arrived mutilated")
            if removes:
                path.unlink()

    def _read_bounce(self, number: int, message: bytes) -> None:
        original = message.find(b"--- Below this line is a copy")
        for kind, named in set(_NAMED.findall(message, 0, original)):
            self.arrived[int(named), kind.decode()] += 1
            if int(named) != number:
                self.faults.append(f"{number} was told of {kind}-{named}")
        if not message.endswith(body(number)):
            self.faults.append(f"the bounce of {number} is mutilated")

    # the sum

    @property
    def duplicates(self) -> dict[Pair, int]:
        """How many copies too many arrived."""
        wanted = {pair for pair in self.arrived if pair[1] != "sender"}
        return {
            pair: self.arrived[pair] - 1 for pair in wanted if self.arrived[pair] > 1
        }

    @property
    def lost(self) -> list[Pair]:
        """What was accepted and arrived nowhere."""
        pairs = [
            (number, became)
            for number in sorted(self.accepted)
            for kind in kinds_of(number)
            for became in BECOMES.get(kind, (kind,))
        ]
        return [pair for pair in pairs if not self.arrived[pair]]

    def allowed(self, pair: Pair) -> int:
        """How many more copies of a pair the kills explain."""
        number, kind = pair
        more = self.in_flight[pair]
        for before, became in BECOMES.items():
            if kind in became:
                more += self.in_flight[number, before]
        if kind in RETURNED:
            more += self.in_flight[number, "sender"] + self.requeued[number]
        return more

    def summary(self) -> list[str]:
        """The sum in words, and every duplicate."""
        rows = [
            f"accepted: {len(self.accepted)} messages; {self.attempts} attempts",
            f"in flight at a kill: {self.in_flight.total()}",
            f"arrived more than once: {len(self.duplicates)} recipients",
        ]
        for pair, more in sorted(self.duplicates.items()):
            rows.append(f"  {pair}: {more} more, {self.allowed(pair)} explained")
        return rows

    def check(self) -> None:
        """Fail unless nothing was lost and each duplicate was in flight at a kill."""
        assert not self.faults, self.faults
        for pair in self.lost:
            raise AssertionError(f"{pair} is lost:\n{self.story(pair[0])}")
        for pair, more in self.duplicates.items():
            if more > self.allowed(pair):
                raise AssertionError(f"{pair}, {more}:\n{self.story(pair[0])}")
