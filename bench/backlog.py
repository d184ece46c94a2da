"""W6: a long queue that waits, and what it costs what is new. qsend only."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil

from bench import exactly, proctree
from bench.lab import QSEND, TIMEOUT_S, Lab, measured
from bench.letters import one_each
from bench.outcome import Outcome
from bench.peers.base import Site
from bench.peers.qsend import Qsend
from bench.sink import PORT
from bench.waiting import Waiting
from bench.workload import Variant

NEW = 2000
FLUSHED = 10_000
"""So many deliveries of a flush are waited for."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """So many messages that are due tomorrow, and then NEW ones."""

    count: int

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """The figures are those of the new mail; the rest is in `extra`."""
        if not self.count:
            outcome.extra = self._drain(lab, system, None, outcome)
            return
        # Just before, on a home of its own: machines and disks drift.
        empty = Outcome(variant="", system=system, round=0)
        self._drain(lab, system, None, empty)
        old = lab.waiting(lab.count(self.count))
        found = self._drain(lab, system, old, outcome)
        outcome.extra = {
            "per second when empty": empty.rate,
            "share of that rate": outcome.rate / empty.rate,
            **found,
        }

    def _drain(
        self, lab: Lab, system: str, old: Waiting | None, outcome: Outcome
    ) -> dict[str, float]:
        """Start with `old` queued and deliver new mail; what else was seen."""
        site = Site(relay=PORT, durability=lab.durability)
        new = one_each(lab.count(NEW), b"m%d@sink.example")
        with lab.system(system, site) as peer:
            assert isinstance(peer, Qsend)
            if old is not None:
                old.lend(peer.queue_path)
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
            if old is not None:
                extra |= flush(lab, peer, old)
        return extra


def flush(lab: Lab, peer: Qsend, old: Waiting) -> dict[str, float]:
    """Have all tried now; nothing may arrive twice. It runs no more afterwards."""
    count = min(old.count, FLUSHED)
    cpu_s, begin = peer.cpu_s(), time.monotonic()
    peer.run(*peer.command("flush"), "all")
    answer_s = time.monotonic() - begin
    lab.sink.wait(count, TIMEOUT_S)
    arrived, seconds = lab.sink.count, time.monotonic() - begin
    used_s = peer.cpu_s() - cpu_s
    peer.stop()
    is_whole = count == old.count
    recips = (each.recip for each in lab.sink.take())
    exactly.require(old.recips(), recips, may_lack=not is_whole)
    if not is_whole:
        old.take_back(peer.queue_path)
    return {
        "flush answered s": answer_s,
        "flushed per second": arrived / seconds,
        "flush cpu s/1000": used_s * 1000 / arrived,
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
