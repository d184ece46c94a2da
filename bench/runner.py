"""Rounds: every variant's peers take turns, A B C A B C, with a progress bar."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.errors import BenchError
from bench.lab import Lab
from bench.outcome import Outcome
from bench.workload import Variant, turns


def run(
    lab: Lab,
    variants: Sequence[Variant],
    systems: Collection[str],
    rounds: int,
    tell: Callable[[Outcome], None],
) -> None:
    """All of it; `tell` gets each outcome, with an error when a run failed."""
    plan = [
        (variant, number, system)
        for variant in variants
        for number, system in turns(variant, systems, rounds)
    ]
    with _progress() as progress:
        task = progress.add_task("", total=len(plan))
        for variant, number, system in plan:
            progress.update(task, description=f"{variant.name}: {system}")
            outcome = _once(lab, variant, number, system)
            tell(outcome)
            progress.console.print(_line(outcome), highlight=False)
            progress.advance(task)


def _once(lab: Lab, variant: Variant, number: int, system: str) -> Outcome:
    outcome = Outcome(variant=variant.name, system=system, round=number)
    begin = time.monotonic()
    try:
        variant.run(lab, system, outcome)
    except (BenchError, OSError, RuntimeError, subprocess.SubprocessError) as exc:
        outcome.error = str(exc) or repr(exc)
    outcome.took_s = time.monotonic() - begin
    return outcome


def _line(outcome: Outcome) -> str:
    head = f"{outcome.variant} round {outcome.round} {outcome.system}:"
    if outcome.error:
        return f"{head} FAILED {outcome.error}"
    return (
        f"{head} {outcome.rate:.0f}/s, {outcome.cpu_per_1000:.2f} cpu s/1000, "
        f"{outcome.peak_mib:.0f} MiB"
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr, soft_wrap=True),
    )
