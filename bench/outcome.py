"""What one run gave, and keeping it: JSON with everything, CSV with the figures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.stats import percentile


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One round of one variant with one system.

    `units` are messages, or recipients in W3; nan stands for what has no meaning there.
    `latencies_s` run from acceptance to delivery. `error` says why there is no figure.
    `took_s` is all of the round's time, with setting up and deleting.
    """

    variant: str
    system: str
    round: int
    units: int = 0
    seconds: float = math.nan
    cpu_s: float = math.nan
    peak_mib: float = math.nan
    p50_ms: float = math.nan
    p99_ms: float = math.nan
    took_s: float = math.nan
    error: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, float] = field(default_factory=dict)
    timeline: Sequence[tuple[float, int]] = ()

    def latencies(self, latencies_s: Sequence[float]) -> None:
        """Note the median and the 99th percentile."""
        self.p50_ms = percentile(latencies_s, 50) * 1000
        self.p99_ms = percentile(latencies_s, 99) * 1000

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.units / self.seconds

    @property
    def cpu_per_1000(self) -> float:
        """Processor seconds of the whole tree per 1000 units."""
        return self.cpu_s * 1000 / self.units if self.units else math.nan


DELIVERED = "delivered per second"
"""In `extra`: as the rate, but without the time in which the queue became empty."""

RESULTS = "results.json"
COLUMNS = (
    "variant", "system", "round", "units", "seconds", "rate", "cpu_s", "cpu_per_1000",
    "peak_mib", "p50_ms", "p99_ms", "took_s", "error",
)  # fmt: skip


def save(
    directory: Path, machine: Mapping[str, Any], outcomes: Sequence[Outcome]
) -> None:
    """Write results.json and results.csv; cut short, those of before are left."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "outcomes": [_plain(each) for each in outcomes]}
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow([*machine.keys(), *COLUMNS])
    facts = [json.dumps(each) for each in machine.values()]
    for each in outcomes:
        writer.writerow([*facts, *(getattr(each, name) for name in COLUMNS)])
    for name, text in (
        (RESULTS, json.dumps(content, indent=1) + "\n"),
        ("results.csv", table.getvalue()),
    ):
        new = directory / f"{name}.new"
        new.write_text(text, newline="")
        new.replace(directory / name)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the suite gave, and what it was made on."""

    machine: Mapping[str, Any]
    outcomes: Sequence[Outcome]


def load(path: Path) -> Run:
    """What `save` wrote as results.json."""
    content = json.loads(path.read_text())
    return Run(content["machine"], [_outcome(each) for each in content["outcomes"]])


def _outcome(plain: Mapping[str, Any]) -> Outcome:
    known = {key: item for key, item in plain.items() if item is not None}
    timeline = [(at, waiting) for at, waiting in plain["timeline"]]
    return Outcome(**{**known, "timeline": timeline})


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        key: None if isinstance(item, float) and math.isnan(item) else item
        for key, item in asdict(outcome).items()
    }
