"""W8: messages of 1 MiB and 20 MiB."""

from __future__ import annotations

from dataclasses import dataclass

from bench.lab import ALL, TIMEOUT_S, Lab, drain, require_at_sink
from bench.letters import one_each
from bench.outcome import Outcome
from bench.peers.base import Site
from bench.sink import PORT
from bench.workload import Variant

MIB = 1 << 20
SLOTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Large:
    """So many messages of so many bytes drain to the sink."""

    size: int
    count: int

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """One drain."""
        letters = one_each(self.count, b"m%d@sink.example", size=self.size)
        site = Site(relay=PORT, slots=SLOTS, per_host=SLOTS, durability=lab.durability)
        with lab.system(system, site) as peer:
            drain(
                peer, letters, outcome, lambda: lab.sink.wait(len(letters), TIMEOUT_S)
            )
        require_at_sink(letters, (each.recip for each in lab.sink.take()))
        outcome.extra = {
            **outcome.extra,
            "MiB per second": self.count * self.size / MIB / outcome.seconds,
        }


def variants(*, full: bool) -> list[Variant]:
    """Those of W8."""
    kinds = {"1 MiB": Large(size=MIB, count=100 if full else 40)}
    if full:
        kinds["20 MiB"] = Large(size=20 * MIB, count=40)
    return [
        Variant("w8", f"{kind.count} messages of {title}", kind.run, ALL)
        for title, kind in kinds.items()
    ]
