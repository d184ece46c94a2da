"""W3: one message for thousands of recipients."""

from __future__ import annotations

from dataclasses import dataclass

from bench.lab import ALL, TIMEOUT_S, Lab, drain, require_at_sink
from bench.letters import Letter
from bench.outcome import Outcome
from bench.peers.base import Site
from bench.sink import PORT
from bench.workload import Variant

RECIPS, DOMAINS = 5000, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class OneToMany:
    """All domains through one relay, or each by its own MX record."""

    is_relayed: bool

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """One drain; the units are recipients."""
        lab.dns()
        count = lab.count(RECIPS, system)
        recips = (b"m%d@d%d.sink.example" % (n, n % DOMAINS) for n in range(count))
        letters = [Letter(0, tuple(recips))]
        relay = PORT if self.is_relayed else None
        site = Site(relay=relay, durability=lab.durability)
        with lab.system(system, site) as peer:
            drain(peer, letters, outcome, lambda: lab.sink.wait(count, TIMEOUT_S))
        require_at_sink(letters, (each.recip for each in lab.sink.take()))


def variants(*, full: bool) -> list[Variant]:
    """Those of W3."""
    kinds = {"one relay": True} | ({"an MX for each domain": False} if full else {})
    return [
        Variant(
            "w3",
            f"one message, {RECIPS} recipients in {DOMAINS} domains, {title}",
            OneToMany(is_relayed=is_relayed).run,
            ALL,
            "recipients",
        )
        for title, is_relayed in kinds.items()
    ]
