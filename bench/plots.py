"""The report's plots, as PNG files.

Every plot is made of the results alone, and left out when they have nothing for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench.outcome import Outcome
from bench.show import figure, of, systems, variants

mpl.use("Agg")
from matplotlib import pyplot

SIZE = (8, 4.5)
_SLOTS = re.compile(r"w1 remote, sink at once(?:, (\d+) slots)?")
_LATENCY = re.compile(r"w1 remote, sink (?:(\d+) ms|at once)")
_WAITING = re.compile(r"w6 new mail while (\d+) wait")
_DEFAULT_SLOTS = 50
WIDE = 1000
"""Numbers above are drawn by their logarithm."""


def draw(directory: Path, outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Write all plots; (title, file name) of each."""
    made = []
    lines = (
        ("Throughput against slots", "slots.png", _SLOTS, _DEFAULT_SLOTS, "slots"),
        ("Throughput against sink latency", "latency.png", _LATENCY, 0, "ms"),
        ("New mail against queue length", "waiting.png", _WAITING, 0, "messages wait"),
    )
    for title, name, pattern, default, label in lines:
        if _against(directory / name, outcomes, pattern, default, label):
            made.append((title, name))
    if _bars(directory / "cpu.png", outcomes):
        made.append(("Processor time of the whole tree", "cpu.png"))
    for variant in variants(outcomes):
        name = "depth-" + re.sub(r"\W+", "-", variant) + ".png"
        if _timeline(directory / name, outcomes, variant):
            made.append((f"Messages that wait: {variant}", name))
    return made


def _against(
    path: Path,
    outcomes: Sequence[Outcome],
    pattern: re.Pattern[str],
    default: int,
    label: str,
) -> bool:
    """Lines: rate against the number in the variant's name; error bars from rounds."""
    found = [(pattern.fullmatch(name), name) for name in variants(outcomes)]
    points = sorted((int(m[1] or default), name) for m, name in found if m)
    if len(points) < 2:
        return False
    axes = _axes(label, "per second")
    for system in systems(outcomes):
        rows = []
        for number, name in points:
            rate = figure(of(outcomes, name, system), lambda each: each.rate)
            if rate is not None:
                rows.append((number, rate))
        if rows:
            medians = [rate.median for _, rate in rows]
            below = [rate.median - rate.least for _, rate in rows]
            above = [rate.most - rate.median for _, rate in rows]
            numbers = [number for number, _ in rows]
            axes.errorbar(
                numbers, medians, [below, above], label=system, marker="o", capsize=3
            )
    axes.set_ylim(bottom=0)
    if points[-1][0] > WIDE:
        axes.set_xscale("symlog", linthresh=WIDE)
        axes.set_xlim(-WIDE / 2, 2 * points[-1][0])
    return _save(axes, path)


def _bars(path: Path, outcomes: Sequence[Outcome]) -> bool:
    """Bars: processor seconds per 1000, a group for each variant."""
    counted = [each for each in outcomes if not math.isnan(each.cpu_per_1000)]
    names, shown = variants(counted), systems(counted)
    if not names:
        return False
    axes = _axes("cpu seconds per 1000", "")
    width = 0.8 / len(shown)
    for index, system in enumerate(shown):
        found = [(r, figure(of(counted, n, system), _cpu)) for r, n in enumerate(names)]
        bars = [(row + index * width, cpu.median) for row, cpu in found if cpu]
        places, lengths = zip(*bars, strict=True)
        axes.barh(places, lengths, width, color=f"C{index}", label=system)
    axes.set_yticks(
        [row + 0.4 - width / 2 for row in range(len(names))], names, fontsize=7
    )
    axes.invert_yaxis()
    axes.figure.set_figheight(1.5 + 0.35 * len(names))
    return _save(axes, path)


def _cpu(outcome: Outcome) -> float:
    return outcome.cpu_per_1000


def _timeline(path: Path, outcomes: Sequence[Outcome], variant: str) -> bool:
    """Lines: how many messages waited over time, in the first round of each system."""
    axes = _axes("seconds", "messages that wait")
    for system in systems(outcomes):
        rounds = [each for each in of(outcomes, variant, system) if each.timeline]
        if rounds:
            seconds, waiting = zip(*rounds[0].timeline, strict=True)
            axes.plot(seconds, waiting, label=system)
    return _save(axes, path)


def _axes(below: str, beside: str) -> Any:
    _figure, axes = pyplot.subplots(figsize=SIZE)
    axes.set_xlabel(below)
    axes.set_ylabel(beside)
    axes.grid(visible=True, alpha=0.3)
    return axes


def _save(axes: Any, path: Path) -> bool:
    """Write it unless it is empty; whether it was written."""
    has_any = bool(axes.get_legend_handles_labels()[0])
    if has_any:
        axes.legend()
        axes.figure.tight_layout()
        axes.figure.savefig(path, dpi=100)
    pyplot.close(axes.figure)
    return has_any
