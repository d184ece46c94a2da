"""kill -9 of every kind of process, hundreds of times, and the sum is right."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from qsend.sysio import clock
from tests.procs.family import until
from tests.tree import injector
from tests.tree.harness import Tree
from tests.tree.ledger import Ledger, Log, follow

KILLS = 200
SENDERS = (("library", 64901), ("library", 0), ("program", 64901))
"""How messages are injected, and by whom; root writes the queue itself when there
is nobody to ask."""
TITLES = tuple(
    f"qmail-{kind}"
    for kind in (
        "start", "send", "clean", "queue", "lookup", "lspawn", "local", "remote",
    )
)  # fmt: skip
SWEEP_ALL = "from qsend.sysio import sweeper; sweeper.OSSIFIED_S = -10"


class Sink:
    """An SMTP server that counts; it refuses recipients that begin with "no"."""

    def __init__(self, chance: random.Random) -> None:
        self.arrived: Counter[tuple[int, str]] = Counter()
        self.mutilated: list[str] = []
        self._chance = chance

    async def handle_RCPT(
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        if address.startswith("no"):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 yes"

    async def handle_DATA(
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        for address in envelope.rcpt_tos:
            kind, number = address.partition("@")[0].split("-")
            self.arrived[int(number), kind] += 1
            assert isinstance(envelope.content, bytes)
            body = envelope.content.replace(b"\r\n", b"\n")
            if not body.endswith(injector.content(int(number))):
                self.mutilated.append(address)
        # Between the message and the word that it has come: the time for a kill.
        await asyncio.sleep(self._chance.random() * 0.1)
        return "250 2.0.0 queued"


class Killer:
    """A tree that is killed piece by piece and started again."""

    def __init__(self, tree: Tree, chance: random.Random) -> None:
        self.logs: list[Log] = []
        self.kills: Counter[str] = Counter()
        self._tree = tree
        self._chance = chance
        self._seen: dict[int, psutil.Process] = {}

    def start(self) -> None:
        """Start the tree; what is left of the one before may still hold the lock."""
        end_mono = clock.mono() + 30
        while True:
            self._tree.start(until=b"")
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


def tell(*lines: str) -> None:
    """Show facts of this run where pytest shows what a test printed."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("QSEND_TEST_SEED", random.randrange(1 << 32)))
    tell(f"QSEND_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def sink(chance: random.Random) -> Iterator[tuple[Sink, int]]:
    made = Sink(chance)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    controller = Controller(made, hostname="127.0.0.1", port=port)
    controller.start()
    yield made, port
    controller.stop()


@pytest.fixture
def killer(tree: Tree, chance: random.Random) -> Iterator[Killer]:
    made = Killer(tree, chance)
    yield made
    made.close()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.serial
def test_two_hundred_kills_lose_nothing(
    tree: Tree,
    killer: Killer,
    sink: tuple[Sink, int],
    chance: random.Random,
    tmp_path: Path,
) -> None:
    taken, port = sink
    maildirs = _set_up(tree, port)
    killer.start()
    answers = tmp_path / "answers"
    sources = [_inject(tree, n, *how, answers) for n, how in enumerate(SENDERS)]
    while killer.kills.total() < KILLS:
        for _ in range(chance.randint(4, 8)):
            killer.pause()
            killer.strike(most=3)
        killer.strike_start()
        killer.start()
        tree.run("flush", "all", check=False)
    ledger = Ledger()
    for source in sources:
        source.communicate(timeout=90)
    ledger.read_answers(answers.read_bytes())
    _finish(tree, killer)
    for log in killer.logs:
        ledger.read_log(log.lines)
    ledger.arrived.update(taken.arrived)
    for maildir, kinds in maildirs.items():
        ledger.read_maildir(maildir, *kinds)
    tell(f"kills: {dict(killer.kills)}", *ledger.summary())
    assert not taken.mutilated
    ledger.check()
    assert killer.kills.total() >= KILLS
    assert all(killer.kills[title] >= 5 for title in TITLES), killer.kills
    _sweep(tree)


def _set_up(tree: Tree, port: int) -> dict[Path, tuple[str, ...]]:
    """Controls and aliases; the Maildirs, and the kinds of recipient of each."""
    tree.control("smtproutes", f":127.0.0.1:{port}\n")
    tree.alias("box-default", "./Maildir/\n")
    tree.alias("prog-default", "|sleep 0.05\n./Maildir/\n")
    hop = '"$QSEND_HOME"/bin/qmail-inject -a -f "$SENDER" -- hop-"$EXT2"@' + (
        injector.HERE
    )
    tree.alias("fwd-default", f"|{hop}\n")
    tree.alias("hop-default", "./Hopped/\n")
    tree.alias("sender-default", "./Returned/\n")
    return {
        tree.maildir(): ("box", "prog"),
        tree.maildir("Hopped"): ("hop",),
        tree.maildir("Returned"): ("sender",),
    }


def _inject(
    tree: Tree, first: int, how: str, uid: int, answers: Path
) -> subprocess.Popen[bytes]:
    """An injector until its standard input closes; it adds to `answers`."""
    source = Path(injector.__file__).read_text()
    with answers.open("ab") as stdout:
        return subprocess.Popen(
            [
                *(str(tree.installation.python), "-c", source),
                *(str(tree.home), how, str(first), str(len(SENDERS))),
            ],
            stdin=subprocess.PIPE,
            stdout=stdout,
            cwd="/",
            env={"PATH": os.environ["PATH"]},
            user=uid,
            group=uid,
            extra_groups=[],
        )


def _finish(tree: Tree, killer: Killer) -> None:
    """Have everything delivered, whatever was deferred or held; end the tree."""
    end_mono = clock.mono() + 60
    log = killer.logs[-1]
    while _waiting(tree):
        assert clock.mono() < end_mono, _waiting(tree)
        tree.run("release", "all")
        tree.run("flush", "all")
        log.wait_for(len(log.lines) + 100, 1)
    assert tree.process is not None
    tree.process.terminate()
    assert tree.process.wait(30) == 0
    for each in killer.logs:
        assert each.wait_over(30), "something of an ended tree goes on"


def _waiting(tree: Tree) -> list[Path]:
    """What is in the queue: envelopes and preprocessed messages."""
    names = ("info", "todo", "local", "remote", "bounce")
    return [path for path in tree.queue_files() if set(names) & set(path.parts)]


def _sweep(tree: Tree) -> None:
    """What injections and removals left when they were killed goes with its age."""
    left = tree.queue_files()
    tell(f"left for the sweep: {len(left)}")
    assert all({"mess", "intd"} & set(path.parts) for path in left), left
    tree.start(patch=SWEEP_ALL)
    assert until(lambda: not tree.queue_files()), tree.queue_files()
    assert tree.stop() == 0
