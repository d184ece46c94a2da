"""Results as tables in Markdown, printed and put into the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from bench.outcome import DELIVERED, Outcome, Run
from bench.stats import Spread, ratios, spread

OURS = "qsend"
NAMED_MAX = 8
"""A run of more variants is the one that has what no other run has."""
_HEAD = (
    "system", "rounds", "per second", "cpu s/1000", "p50 ms", "p99 ms", "peak MiB",
    "qsend is so many times as fast", "failed",
)  # fmt: skip


def variants(outcomes: Iterable[Outcome]) -> list[str]:
    """The names of the variants, in order."""
    return list(dict.fromkeys(each.variant for each in outcomes))


def systems(outcomes: Iterable[Outcome]) -> list[str]:
    """The names of the systems, in order."""
    return list(dict.fromkeys(each.system for each in outcomes))


def of(outcomes: Iterable[Outcome], variant: str, system: str) -> list[Outcome]:
    """The good rounds of one system in one variant."""
    return [
        each
        for each in outcomes
        if (each.variant, each.system) == (variant, system) and not each.error
    ]


def figure(
    outcomes: Sequence[Outcome], value: Callable[[Outcome], float]
) -> Spread | None:
    """One figure over the rounds."""
    return spread([value(each) for each in outcomes])


def lead(
    outcomes: Sequence[Outcome],
    variant: str,
    system: str,
    value: Callable[[Outcome], float],
) -> Spread | None:
    """How many times as much as a peer qsend does, round by round."""

    def rates(name: str) -> dict[int, float]:
        return {each.round: value(each) for each in of(outcomes, variant, name)}

    return ratios(rates(OURS), rates(system))


def table(outcomes: Sequence[Outcome], variant: str) -> str:
    """One variant: a row for each system."""
    lines = [_row(_HEAD), _row("---" for _ in _HEAD)]
    here = [each for each in outcomes if each.variant == variant]
    for system in systems(here):
        good = of(here, variant, system)
        failed = sum(1 for each in here if each.system == system and each.error)
        ratio = None if system == OURS else lead(here, variant, system, _rate)
        lines.append(
            _row(
                (
                    system,
                    str(len(good)),
                    _cell(figure(good, _rate), 0),
                    _cell(figure(good, lambda each: each.cpu_per_1000), 2),
                    _cell(figure(good, lambda each: each.p50_ms), 1),
                    _cell(figure(good, lambda each: each.p99_ms), 1),
                    _cell(figure(good, lambda each: each.peak_mib), 0),
                    _cell(ratio, 2),
                    str(failed or ""),
                )
            )
        )
    return "\n".join(lines) + "\n" + _extras(here, variant)


def tables(outcomes: Sequence[Outcome]) -> str:
    """All of it."""
    parts = [f"### {each}\n\n{table(outcomes, each)}" for each in variants(outcomes)]
    errors = [each for each in outcomes if each.error]
    if errors:
        parts.append("### Failed runs\n")
        parts += [
            f"* {e.variant}, {e.system}, round {e.round}: {e.error}" for e in errors
        ]
    return "\n".join(parts)


def facts(runs: Sequence[Run]) -> str:
    """What they were made on, as a list; what differs, for each with its variants.

    With its workloads, where these are too many.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.machine))
    common = [n for n in names if len({str(r.machine.get(n)) for r in runs}) == 1]
    text = "".join(f"* {name}: {runs[0].machine[name]}\n" for name in common)
    if len(runs) == 1:
        return text
    for number, run in enumerate(runs, 1):
        own = {n: run.machine[n] for n in run.machine if n not in common}
        named = variants(run.outcomes)
        if len(named) > NAMED_MAX:
            named = list(dict.fromkeys(name.split()[0] for name in named))
        text += f"* run {number} ({'; '.join(named)}): "
        text += ", ".join(f"{name} {value}" for name, value in own.items()) + "\n"
    return text


def minutes(outcomes: Sequence[Outcome]) -> str:
    """How long the rounds of each workload took, with setting up; one line."""
    took_s: dict[str, float] = {}
    for each in outcomes:
        if not math.isnan(each.took_s):
            workload = each.variant.split()[0]
            took_s[workload] = took_s.get(workload, 0) + each.took_s
    parts = [f"{name} {seconds / 60:.1f}" for name, seconds in took_s.items()]
    return f"minutes: {', '.join(parts)}; together {sum(took_s.values()) / 60:.1f}\n"


def _extras(here: Sequence[Outcome], variant: str) -> str:
    lines = []
    for system in systems(here):
        good = of(here, variant, system)
        names = [n for n in (good[0].extra if good else {}) if n != "began"]
        shown = [f"{n} {_cell(spread([e.extra[n] for e in good]), 2)}" for n in names]
        if DELIVERED in names and system != OURS:
            ratio = lead(here, variant, system, lambda each: each.extra[DELIVERED])
            if ratio is not None:
                shown.append(f"of which qsend delivers {_cell(ratio, 2)} times as many")
        if shown:
            lines.append(f"\n{system}: " + ", ".join(shown) + "\n")
    return "".join(lines)


def _rate(outcome: Outcome) -> float:
    return outcome.rate


def _cell(value: Spread | None, digits: int) -> str:
    if value is None or math.isnan(value.median):
        return ""
    return value.show(digits)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
