"""What a workload has at hand: peers, sink, DNS, mailboxes, and a measured drain."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench import exactly, mailboxes, peers, waiting
from bench.letters import Letter
from bench.mailboxes import Mailboxes
from bench.outcome import DELIVERED, Outcome
from bench.peers.base import Site, System
from bench.proctree import MemoryWatch
from bench.sink import Sink
from bench.waiting import Waiting
from tests.dnsserver import SOA, running_dns

DOMAINS_MAX = 1000
TIMEOUT_S = 300.0
SLOW, SHORT = 0.25, 0.5
ZONE = "sink.example"
QSEND, POSTFIX, TUNED, NOTQMAIL = "qsend", "postfix", "postfix-tuned", "notqmail"
ALL = (QSEND, POSTFIX, NOTQMAIL)


@dataclass(slots=True, kw_only=True)
class Lab:
    """`scale` multiplies the counts of messages that workloads use by themselves."""

    sink: Sink
    durability: str = "full"
    scale: float = 1.0
    is_quick: bool = True
    _stack: ExitStack = field(default_factory=ExitStack)
    _boxes: dict[tuple[int, bool], Mailboxes] = field(default_factory=dict)
    _has_dns: bool = False
    _waiting: dict[int, Waiting] = field(default_factory=dict)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def count(self, messages: int, system: str = "", quick: float = 1.0) -> int:
        """So many, to scale; in a quick run the share `quick` of them.

        Of a slow system a quarter: its rate does not depend on the number.
        """
        share = quick if self.is_quick else 1.0
        if system == NOTQMAIL:
            share = min(share, SLOW)
        return max(int(messages * self.scale * share), 20)

    def boxes(self, count: int, *, own_uids: bool = False) -> Mailboxes:
        """Empty mailboxes; made once for the whole suite."""
        key = (count, own_uids)
        if key not in self._boxes:
            made = mailboxes.made(count, own_uids=own_uids)
            self._boxes[key] = self._stack.enter_context(made)
        self._boxes[key].renew()
        return self._boxes[key]

    def waiting(self, count: int) -> Waiting:
        """So many messages that wait; made once for the whole suite."""
        if count not in self._waiting:
            self._waiting[count] = self._stack.enter_context(waiting.made(count))
        return self._waiting[count]

    def dns(self) -> None:
        """Have a DNS server for ZONE: good, bad and slow hosts by the hundred."""
        if not self._has_dns:
            zones = {ZONE: zone()}
            self._stack.enter_context(running_dns(zones, port=53))
            self._has_dns = True

    @contextmanager
    def system(self, name: str, site: Site) -> Iterator[System]:
        """A peer that is ended afterwards; what it leaves is deleted at the end.

        Where thousands of files were just deleted, ext4 without a journal looks for
        milliseconds for the inode of a new one.
        """
        self.sink.take()
        system = peers.make(name, site)
        self._stack.callback(system.remove)
        try:
            system.open()
            yield system
        finally:
            system.close()
            self.sink.latency(0)


def zone() -> str:
    """dN: an MX each with an address each; silentN and slowN likewise."""
    kinds = (("d", 1, DOMAINS_MAX), ("silent", 2, 100), ("slow", 3, 100))
    return SOA + "".join(
        f"{name}{n} 300 IN MX 10 mx-{name}{n}\n"
        f"mx-{name}{n} 300 IN A 127.{net}.{n // 250}.{n % 250 + 1}\n"
        for name, net, count in kinds
        for n in range(count)
    )


@contextmanager
def measured(system: System, outcome: Outcome, units: int) -> Iterator[None]:
    """Time, processor and memory of a running system, from here to the block's end."""
    outcome.settings = system.settings()
    outcome.units = units
    # What setting up has written must not be paid for now.
    os.sync()
    with MemoryWatch(system.roots()) as memory:
        cpu_s = system.cpu_s()
        begin = time.monotonic()
        yield
        outcome.seconds = time.monotonic() - begin
        outcome.cpu_s = system.cpu_s() - cpu_s
    outcome.peak_mib = memory.peak_mib


def drain(
    system: System,
    letters: Sequence[Letter],
    outcome: Outcome,
    wait: Callable[[], None],
) -> None:
    """Queue, let go, and wait for delivery and then for an empty queue."""
    system.queue(letters)
    units = sum(len(each.recips) for each in letters)
    with measured(system, outcome, units):
        begin = time.time()
        system.go()
        wait()
        delivered = time.time()
        system.wait_empty()
    outcome.extra = {
        "began": begin,
        DELIVERED: units / (delivered - begin),
    }


def require_at_sink(letters: Iterable[Letter], arrived: Iterable[bytes]) -> None:
    """Every recipient of every letter once, and nobody else. Raises: BenchError."""
    exactly.require((recip for each in letters for recip in each.recips), arrived)
