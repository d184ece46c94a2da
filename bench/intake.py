"""W4: how fast mail is taken, while nothing is delivered.

Everything that was taken is delivered afterwards, unmeasured, and counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench import exactly, source
from bench.errors import BenchError
from bench.lab import NOTQMAIL, POSTFIX, QSEND, SHORT, TIMEOUT_S, Lab, measured
from bench.letters import SENDER, Letter, one_each
from bench.outcome import Outcome
from bench.peers.base import QMQP_PORT, SMTP_PORT, Site, System
from bench.sink import PORT
from bench.tree import ROOT
from bench.workload import Variant

COUNT = 2000
RECIP = "m@sink.example"


def take(
    lab: Lab, system: str, outcome: Outcome, way: Smtp | Qmqp | Program, count: int
) -> None:
    """Take `count` messages in, then deliver and count them."""
    site = Site(relay=PORT, listens=True, is_held=True, durability=lab.durability)
    with lab.system(system, site) as peer:
        peer.boot()
        with measured(peer, outcome, count):
            sent = way.send(peer, count, outcome)
            peer.settle()
        outcome.seconds = outcome.extra.get("seconds", outcome.seconds)
        peer.release()
        peer.go()
        lab.sink.wait(count, TIMEOUT_S)
        peer.wait_empty()
    exactly.require(sent, (each.recip for each in lab.sink.take()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Smtp:
    """smtp-source with ten sessions, each for many messages or for one."""

    keep: bool

    def send(self, _peer: System, count: int, _outcome: Outcome) -> Sequence[bytes]:
        """Send; the recipients."""
        return source.smtp_source(count, RECIP, SMTP_PORT, keep=self.keep)

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """One round."""
        take(lab, system, outcome, self, lab.count(COUNT, system, quick=SHORT))


@dataclass(frozen=True, slots=True)
class Qmqp:
    """Our own source, a connection for each message, ten at once; SMTP to Postfix."""

    def send(self, peer: System, count: int, outcome: Outcome) -> Sequence[bytes]:
        """Send; the recipients."""
        letters = one_each(count, b"m%d@sink.example")
        is_smtp = peer.name == POSTFIX
        sent = source.send(
            letters,
            SMTP_PORT if is_smtp else QMQP_PORT,
            keep=False,
            protocol="smtp" if is_smtp else "qmqp",
        )
        outcome.extra = {"seconds": sent.seconds}
        return [each.recips[0] for each in letters]

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """One round."""
        take(lab, system, outcome, self, lab.count(COUNT, system, quick=SHORT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """So many callers, each running the program again and again."""

    program: str
    callers: int

    def send(self, peer: System, count: int, outcome: Outcome) -> Sequence[bytes]:
        """Run it for each message; the recipients."""
        recips = [b"m%d@sink.example" % number for number in range(count)]
        jobs = [self._job(peer, n, recip) for n, recip in enumerate(recips)]
        outcome.extra = call(peer, jobs, self.callers)
        return recips

    def _job(self, peer: System, number: int, recip: bytes) -> list[object]:
        content = Letter(number, (recip,)).content().decode()
        if self.program == "sendmail":
            return [peer.sendmail(recip.decode()), content, ""]
        envelope = f"F{SENDER.decode()}\0T{recip.decode()}\0\0"
        return [peer.queue_program(), content, envelope]

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """One round; the cpu figure is that of the programs and of the tree."""
        take(lab, system, outcome, self, lab.count(COUNT // 4))
        outcome.cpu_s += outcome.extra["program cpu ms"] / 1000 * outcome.units


def call(
    peer: System, jobs: Sequence[Sequence[object]], callers: int
) -> dict[str, float]:
    """Have bench.callers run them. Raises: BenchError when one failed."""
    command = peer.inside([sys.executable, "-m", "bench.callers", str(callers)])
    done = subprocess.run(
        command,
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**peer.environ(), "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise BenchError(f"callers: {(done.stderr + done.stdout).strip()[-400:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def variants(*, full: bool) -> list[Variant]:
    """Those of W4."""
    every = (QSEND, POSTFIX, NOTQMAIL)
    found = [
        Variant("w4", "SMTP in, new connections", Smtp(keep=False).run, every),
        Variant("w4", "SMTP in, kept connections", Smtp(keep=True).run, every),
        Variant("w4", "QMQP in (Postfix: SMTP)", Qmqp().run, every),
    ]
    systems = {"sendmail": (QSEND, POSTFIX), "qmail-queue": (QSEND, NOTQMAIL)}
    for program, who in systems.items():
        for callers in (1, 4, 8) if full else (8,):
            run = Program(program=program, callers=callers).run
            found.append(Variant("w4", f"{program}, {callers} callers", run, who))
    return found
