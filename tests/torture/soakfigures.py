"""What a long run measures, and whether it is flat.

The second quarter of a run is compared with the last: caches are full by then, and
whatever grows has had half of the run to show it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.tree.harness import Tree

EARLY, LATE = 1, 3
"""The quarters that are compared, from 0 on."""
MEMORY = "memory, KiB"
"""Anonymous pages. A share of what start and its children have in common (PSS) would
grow whenever another of them ends, or writes to a page of its own.
"""


@dataclass(frozen=True, slots=True)
class Bound:
    """`late` may be `times` of `early` and `more`, in the unit of the figure."""

    times: float
    more: float

    def holds(self, early: float, late: float) -> bool:
        """Whether it did not grow."""
        return late <= early * self.times + self.more


BOUNDS = {
    MEMORY: Bound(1.1, 1024),
    "descriptors": Bound(1.1, 3),
    "messages in the queue": Bound(1.5, 200),
    "latency, ms": Bound(1.5, 50),
    "CPU for a message, ms": Bound(1.25, 0),
}
"""Of the medians. What else the machine does is in the latency, and not in the CPU."""


@dataclass(slots=True)
class Figures:
    """(figure, of what) to the values of each quarter."""

    values: dict[tuple[str, str], tuple[list[float], ...]] = field(
        default_factory=lambda: defaultdict(lambda: ([], [], [], []))
    )
    _cpu: tuple[float, int] | None = None

    def note(self, figure: str, of: str, quarter: int, value: float) -> None:
        """One value."""
        self.values[figure, of][quarter].append(value)

    def sample(self, tree: Tree, quarter: int, ended: int) -> None:
        """Look at every process of a tree; `ended` messages are done with by now."""
        cpu_s = 0.0
        for process in tree.family():
            try:
                title = (process.cmdline() or [""])[0].removesuffix(": qsend")
                times = process.cpu_times()
                cpu_s += sum(times[:4])
                memory = _anonymous_kib(process.pid)
                descriptors = process.num_fds()
            except (psutil.Error, OSError):
                continue
            if title.startswith("qmail-"):
                self.note(MEMORY, title, quarter, memory)
                self.note("descriptors", title, quarter, descriptors)
        if self._cpu is not None and ended > self._cpu[1] and cpu_s > self._cpu[0]:
            took_ms = (cpu_s - self._cpu[0]) * 1000 / (ended - self._cpu[1])
            self.note("CPU for a message, ms", "all", quarter, took_ms)
        self._cpu = cpu_s, ended

    def medians(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Early and late, of what both have."""
        return {
            name: (statistics.median(found[EARLY]), statistics.median(found[LATE]))
            for name, found in sorted(self.values.items())
            if found[EARLY] and found[LATE]
        }

    def grown(self) -> list[str]:
        """What is over its bound."""
        return [
            f"{figure} of {of} grew from {early:.1f} to {late:.1f}"
            for (figure, of), (early, late) in self.medians().items()
            if not BOUNDS[figure].holds(early, late)
        ]

    def table(self) -> str:
        """All of it, a line each."""
        rows = [
            f"{figure:22} {of:14} {early:10.1f} {late:10.1f}\n"
            for (figure, of), (early, late) in self.medians().items()
        ]
        return f"{'median of quarter':22} {'':14} {'2':>10} {'4':>10}\n{''.join(rows)}"


def _anonymous_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    return 0
