"""W5: mail comes in by SMTP and is delivered at the same time."""

from __future__ import annotations

from dataclasses import dataclass

from bench import exactly, source
from bench.lab import ALL, SHORT, TIMEOUT_S, Lab, measured
from bench.letters import Letter, one_each
from bench.outcome import Outcome
from bench.peers.base import HOST, SMTP_PORT, Site
from bench.sink import PORT
from bench.stats import depth
from bench.workload import Variant

COUNT = 2000
BOXES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEnd:
    """Ten sessions, each for many messages or for one; to a sink or to mailboxes."""

    keep: bool
    is_local: bool

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """The clock runs from the first connection until all is delivered."""
        count = lab.count(COUNT, system, quick=SHORT)
        boxes = lab.boxes(BOXES)
        letters = [Letter(n, (boxes.recip(n, HOST),)) for n in range(count)]
        if not self.is_local:
            letters = one_each(count, b"%d@sink.example")
        site = Site(
            relay=PORT, mailboxes=boxes, listens=True, durability=lab.durability
        )
        with lab.system(system, site) as peer:
            peer.boot()
            with measured(peer, outcome, count):
                sent = source.send(letters, SMTP_PORT, keep=self.keep)
                if not self.is_local:
                    lab.sink.wait(count, TIMEOUT_S)
                peer.wait_empty()
        if self.is_local:
            arrived = {each.recip: each.at for _, _, each in boxes.arrivals()}
            exactly.require(
                (b"%d" % n for n in range(count)),
                (each.recip for _, _, each in boxes.arrivals()),
            )
        else:
            arrivals = lab.sink.take()
            exactly.require(
                (recip for each in letters for recip in each.recips),
                (each.recip for each in arrivals),
            )
            arrived = {each.recip.partition(b"@")[0]: each.at for each in arrivals}
        outcome.seconds = max(arrived.values()) - sent.began
        # A delivery may be over before the client has read that its mail is taken.
        outcome.latencies(
            [max(0.0, arrived[b"%d" % n] - at) for n, at in sent.taken.items()]
        )
        outcome.extra = {"taken per second": count / sent.seconds}
        outcome.timeline = depth(list(sent.taken.values()), list(arrived.values()))


def variants(*, full: bool) -> list[Variant]:
    """Those of W5."""
    return [
        Variant(
            "w5",
            f"SMTP in and {'local' if is_local else 'remote'} delivery, {how}",
            EndToEnd(keep=how == "kept connections", is_local=is_local).run,
            ALL,
        )
        for is_local in (False, True)
        for how in ("new connections", "kept connections")
        if full or not (is_local and how == "new connections")
    ]
