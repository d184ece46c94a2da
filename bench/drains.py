"""W1 and W2: a queue of small messages drains to an SMTP sink, or to Maildirs."""

from __future__ import annotations

from dataclasses import dataclass

from bench import exactly
from bench.lab import (
    ALL,
    NOTQMAIL,
    POSTFIX,
    QSEND,
    SHORT,
    SLOW,
    TIMEOUT_S,
    TUNED,
    Lab,
    drain,
    require_at_sink,
)
from bench.letters import Letter, one_each
from bench.outcome import DELIVERED, Outcome
from bench.peers.base import HOST, Site
from bench.sink import PORT
from bench.stats import depth
from bench.workload import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """W1: so many messages of 2 KiB, the sink's latency, destinations, slots.

    Of them in a quick run the share `quick`.
    """

    count: int
    latency_ms: int = 0
    domains: int = 1
    slots: int = 50
    quick: float = 1.0

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """One drain."""
        form = b"m%d@sink.example"
        relay: int | None = PORT
        if self.domains > 1:
            lab.dns()
            form, relay = b"m%d@d%d.sink.example", None
        site = Site(
            slots=self.slots,
            per_host=self.slots,
            relay=relay,
            durability=lab.durability,
        )
        count = lab.count(self.count, system, quick=self.quick)
        letters = one_each(count, form, domains=self.domains)
        with lab.system(system, site) as peer:
            lab.sink.latency(self.latency_ms)
            drain(
                peer, letters, outcome, lambda: lab.sink.wait(len(letters), TIMEOUT_S)
            )
        arrivals = lab.sink.take()
        require_at_sink(letters, (each.recip for each in arrivals))
        begin = outcome.extra["began"]
        times = [each.at for each in arrivals]
        outcome.timeline = depth([begin] * len(letters), times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """W2: so many messages of 2 KiB, and the mailboxes that take turns.

    Of them in a quick run the share `quick`.
    """

    count: int
    boxes: int = 1
    own_uids: bool = False
    quick: float = 1.0

    def run(self, lab: Lab, system: str, outcome: Outcome) -> None:
        """One drain; every message must lie in its own mailbox."""
        boxes = lab.boxes(self.boxes, own_uids=self.own_uids)
        letters = [
            Letter(n, (boxes.recip(n, HOST),))
            for n in range(lab.count(self.count, system, quick=self.quick))
        ]
        site = Site(mailboxes=boxes, durability=lab.durability)
        with lab.system(system, site) as peer:
            # The queue tells when all are delivered: looking into mailboxes costs more.
            drain(peer, letters, outcome, lambda: None)
        found = [(b"%d in u%d" % (n, box), each) for box, n, each in boxes.arrivals()]
        sent = (
            b"%d in u%d" % (each.number, each.number % boxes.count) for each in letters
        )
        exactly.require(sent, (name for name, _ in found))
        begin = outcome.extra["began"]
        times = [each.at for _, each in found]
        rate = len(letters) / (max(times) - begin)
        outcome.extra = {**outcome.extra, DELIVERED: rate}
        outcome.timeline = depth([begin] * len(letters), times)


def variants(*, full: bool) -> list[Variant]:
    """Those of W1 and W2."""
    both = (QSEND, POSTFIX, TUNED, NOTQMAIL)
    few = both if full else (QSEND, POSTFIX)
    found = [
        Variant("w1", "remote, sink at once", Remote(count=2000).run, ALL),
        Variant(
            "w1",
            "remote, 1000 destinations",
            Remote(count=2000, domains=1000, slots=100).run,
            ALL,
        ),
        Variant(
            "w1",
            "remote, sink 100 ms, 500 slots",
            Remote(count=2000, latency_ms=100, slots=500).run,
            (QSEND, TUNED, NOTQMAIL),
        ),
        Variant(
            "w1",
            "remote, sink at once, 5 slots",
            Remote(count=2000, slots=5, quick=SHORT).run,
            few,
        ),
        Variant(
            "w1",
            "remote, sink 100 ms",
            Remote(count=2000, latency_ms=100, quick=SLOW).run,
            few,
        ),
        Variant("w2", "local, one Maildir", Local(count=2000, quick=SHORT).run, ALL),
        Variant(
            "w2",
            "local, 100 mailboxes",
            Local(count=2000, boxes=100, quick=SHORT).run,
            ALL,
        ),
    ]
    if not full:
        return found
    found += [
        Variant(
            "w1",
            f"remote, sink at once, {slots} slots",
            Remote(count=2000, slots=slots).run,
            ALL,
        )
        for slots in (20, 100)
    ]
    found += [
        Variant(
            "w1", "remote, sink 10 ms", Remote(count=2000, latency_ms=10).run, both
        ),
        Variant(
            "w1",
            "remote, sink at once, 20000 queued",
            Remote(count=20000).run,
            (QSEND, POSTFIX),
        ),
        Variant(
            "w1",
            "remote, 1000 destinations, 20000 queued",
            Remote(count=20000, domains=1000).run,
            (QSEND, POSTFIX),
        ),
        Variant(
            "w2", "local, 10000 mailboxes", Local(count=10000, boxes=10000).run, ALL
        ),
        Variant(
            "w2",
            "local, 1000 accounts",
            Local(count=2000, boxes=1000, own_uids=True).run,
            ALL,
        ),
        Variant(
            "w2",
            "local, 100 mailboxes, 20000 queued",
            Local(count=20000, boxes=100).run,
            (QSEND, POSTFIX),
        ),
    ]
    return found
