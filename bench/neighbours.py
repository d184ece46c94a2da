"""W7: half of the queue is for hosts that do not answer, or at one byte a second."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench import exactly
from bench.errors import Late
from bench.lab import (
    NOTQMAIL,
    POSTFIX,
    QSEND,
    SHORT,
    Lab,
    measured,
)
from bench.letters import Letter
from bench.outcome import Outcome
from bench.peers.base import Site
from bench.workload import Variant

COUNT = 10_000
"""Where the sink answers at once: with fewer a run is over before it says anything."""
FAR_COUNT = 3000
FEW = 1000
"""For notqmail, which takes half a minute for these."""
DOMAINS = {b"d": 20, b"silent": 10, b"slow": 10}
"""With 20 bad ones the 100 processes of Postfix's defaults all hang, and the good half
waits until they give up."""
WAIT_S = 60.0
"""So long the good half has; the rate is that of what has arrived by then."""
SLOTS, PER_HOST = 100, 20


@dataclass(frozen=True, slots=True)
class BadHalf:
    """`kind` names the bad hosts: silent or slow; the good ones take `latency_ms`."""

    kind: bytes
    latency_ms: int = 0

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """The good half alone, then both; the figures are those of the good half."""
        lab.dns()
        many = FAR_COUNT if self.latency_ms else COUNT
        count = lab.count(FEW if system == NOTQMAIL else many, quick=SHORT)
        good = [_letter(n, b"d") for n in range(count)]
        bad = [_letter(n, self.kind) for n in range(count)]
        alone = Outcome(variant="", system=system, round=0)
        self._drain(lab, system, good, [], alone)
        self._drain(lab, system, good, bad, outcome)
        outcome.extra = {
            "per second alone": alone.rate,
            "share of the rate alone": outcome.rate / alone.rate,
            "p99 ms alone": alone.p99_ms,
            "part that arrived": outcome.units / count,
        }

    def _drain(
        self,
        lab: Lab,
        system: str,
        good: list[Letter],
        bad: list[Letter],
        outcome: Outcome,
    ) -> None:
        site = Site(slots=SLOTS, per_host=PER_HOST, durability=lab.durability)
        with lab.system(system, site) as peer:
            # With bad ones: one of each in turn.
            peer.queue(sorted(good + bad, key=lambda each: each.number))
            lab.sink.latency(self.latency_ms)
            with measured(peer, outcome, len(good)):
                begin, is_late = time.time(), False
                peer.go()
                try:
                    lab.sink.wait(len(good), WAIT_S)
                except Late:
                    if not bad:
                        raise
                    is_late = True
            arrivals = lab.sink.take()
        exactly.require(
            (recip for each in good for recip in each.recips),
            (each.recip for each in arrivals),
            may_lack=is_late,
        )
        outcome.units = len(arrivals)
        outcome.latencies([each.at - begin for each in arrivals])


def _letter(number: int, kind: bytes) -> Letter:
    recip = b"m%d@%b%d.sink.example" % (number, kind, number % DOMAINS[kind])
    return Letter(number, (recip,))


def variants(*, full: bool) -> list[Variant]:
    """Those of W7. notqmail waits 60 s and more for a slot, in each of them."""
    both = (QSEND, POSTFIX)
    kinds = [
        (BadHalf(b"silent"), "never answer", (*both, NOTQMAIL) if full else both),
        (BadHalf(b"slow"), "answer one byte a second", both if full else (QSEND,)),
    ]
    if full:
        far = BadHalf(b"silent", latency_ms=100)
        kinds.append((far, "never answer, sink 100 ms", both))
    return [
        Variant("w7", f"half for hosts that {title}", kind.run, who)
        for kind, title, who in kinds
    ]
