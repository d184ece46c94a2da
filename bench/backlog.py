"""W6: a long queue that waits, and what it costs what is new. qsend only."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from bench import exactly, proctree
from bench.lab import QSEND, TIMEOUT_S, Lab, measured
from bench.letters import Letter, one_each
from bench.outcome import Outcome
from bench.peers.base import Site
from bench.peers.qmailqueue import mail_of
from bench.peers.qsend import Qsend
from bench.sink import PORT
from bench.workload import Variant
from qsend.core.model import Channel
from tests.longqueue import fill_preprocessed

NEW = 2000
DOMAINS = 1000
WAITS_S = 86400
FLUSHED = 10_000
"""So many deliveries of a flush are waited for."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """So many messages that are due tomorrow, and then NEW ones."""

    count: int

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """The figures are those of the new mail; the rest is in `extra`."""
        old = one_each(
            lab.count(self.count) if self.count else 0,
            b"b%d@d%d.sink.example",
            domains=DOMAINS,
            size=512,
        )
        empty = Outcome(variant="", system=system, round=0)
        if old:
            # Just before, on a home of its own: machines and disks drift.
            self._drain(lab, system, [], empty)
        outcome.extra = self._drain(lab, system, old, outcome)
        if old:
            outcome.extra = {
                "per second when empty": empty.rate,
                "share of that rate": outcome.rate / empty.rate,
                **outcome.extra,
            }

    def _drain(
        self, lab: Lab, system: str, old: Sequence[Letter], outcome: Outcome
    ) -> dict[str, float]:
        """Start with `old` queued and deliver new mail; what else was seen."""
        site = Site(relay=PORT, durability=lab.durability)
        new = one_each(lab.count(NEW), b"m%d@sink.example")
        with lab.system(system, site) as peer:
            assert isinstance(peer, Qsend)
            tomorrow = time.time() + WAITS_S
            mails = map(mail_of, old)
            fill_preprocessed(peer.path / "queue", mails, Channel.REMOTE, tomorrow)
            os.sync()
            begin = time.monotonic()
            peer.boot()
            extra = {"start s": time.monotonic() - begin}
            peer.queue(new)
            with measured(peer, outcome, len(new)):
                peer.go()
                lab.sink.wait(len(new), TIMEOUT_S)
            extra["send MiB"] = send_mib(peer)
            arrived = [each.recip for each in lab.sink.take()]
            exactly.require((each.recips[0] for each in new), arrived)
            if old:
                extra |= flush(lab, peer, old)
        return extra


def flush(lab: Lab, peer: Qsend, old: Sequence[Letter]) -> dict[str, float]:
    """Have all tried now; nothing may arrive twice."""
    count = min(len(old), FLUSHED)
    cpu_s, begin = peer.cpu_s(), time.monotonic()
    peer.run(*peer.command("flush"), "all")
    answer_s = time.monotonic() - begin
    lab.sink.wait(count, TIMEOUT_S)
    seconds = time.monotonic() - begin
    used_s = peer.cpu_s() - cpu_s
    arrived = [each.recip for each in lab.sink.take()]
    if count == len(old):
        exactly.require((each.recips[0] for each in old), arrived)
    return {
        "flush answered s": answer_s,
        "flushed per second": len(arrived) / seconds,
        "flush cpu s/1000": used_s * 1000 / len(arrived),
    }


def send_mib(peer: Qsend) -> float:
    """Memory of the process that works the queue."""
    for pid in (each for root in peer.roots() for each in proctree.family(root)):
        if psutil.Process(pid).cmdline()[:1] == ["qmail-send: qsend"]:
            return proctree.pss_mib(pid)
    return 0.0


def variants(*, full: bool) -> list[Variant]:
    """Those of W6."""
    counts = (0, 1000, 10_000, 100_000, 1_000_000) if full else (0, 5000)
    return [
        Variant("w6", f"new mail while {count} wait", Backlog(count).run, (QSEND,))
        for count in counts
    ]
