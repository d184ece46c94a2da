"""What a workload is: variants, each with the peers that run it in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
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


def turns(
    variant: Variant, systems: Collection[str], rounds: int
) -> list[tuple[int, str]]:
    """Round and system of each run of a variant, in order."""
    return [
        (number, system)
        for number in range(1, rounds + 1)
        for system in variant.systems
        if system in systems or system == MACHINE
    ]


def unfinished(
    variants: Iterable[Variant],
    systems: Collection[str],
    rounds: int,
    had: Iterable[Outcome],
) -> list[Variant]:
    """The variants of which these outcomes of a run that was stopped lack some."""
    runs = Counter(outcome.variant for outcome in had)
    return [
        each for each in variants if runs[each.name] < len(turns(each, systems, rounds))
    ]
