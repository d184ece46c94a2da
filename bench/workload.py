"""What a workload is: variants, each with the peers that run it in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.lab import Lab
from bench.outcome import Outcome

MACHINE = "machine"
"""The "system" of what is measured without one."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the tables. `run` fills the outcome, and raises BenchError."""

    workload: str
    title: str
    run: Callable[[Lab, str, Outcome], None]
    systems: tuple[str, ...]
    unit: str = "messages"

    @property
    def name(self) -> str:
        """How results call it."""
        return f"{self.workload} {self.title}"
