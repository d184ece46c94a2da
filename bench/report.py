"""The report: tables, and plots inside it.

    python -m bench.report RESULTS.json ... [--out DIRECTORY]

makes one report of several runs. A variant that more than one has is taken from the
last: only figures of one run may be compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench import show
from bench.outcome import Outcome, Run, load

_INTRO = """\
# What was measured

Made by the benchmark suite (`python -m bench`); [README.md](README.md) says how each
number is made and what it does not show. Figures are the median of the rounds with the
least and the most of them. "qsend is so many times as fast" compares round by round.

"""


def write(path: Path, runs: Sequence[Run], images: Path) -> None:
    """Write the report to `path` and its plots to `images`, which lies beside it."""
    from bench import plots  # noqa: PLC0415 - needs matplotlib, all else does not

    images.mkdir(parents=True, exist_ok=True)
    runs = latest(runs)
    outcomes = sorted(
        (each for run in runs for each in run.outcomes),
        key=lambda each: each.variant.partition(" ")[0],
    )
    drawn = plots.draw(images, outcomes)
    parts = [_INTRO, show.facts(runs), "\n", show.tables(outcomes), "\n\n## Plots\n"]
    parts += [
        f"\n### {title}\n\n![{title}]({images.name}/{name})\n" for title, name in drawn
    ]
    parts += ["\n## Settings\n\n", *settings(outcomes)]
    path.write_text("".join(parts))


def latest(runs: Sequence[Run]) -> list[Run]:
    """The runs without the variants that a later one has, and in their order."""
    found: list[Run] = []
    seen: set[str] = set()
    for run in reversed(runs):
        kept = [each for each in run.outcomes if each.variant not in seen]
        seen.update(each.variant for each in kept)
        if kept:
            found.insert(0, Run(run.machine, kept))
    return found


def settings(outcomes: Sequence[Outcome]) -> list[str]:
    """What each system was set to in each variant, once."""
    found: dict[tuple[str, str], str] = {}
    for each in outcomes:
        if each.settings:
            # Paths differ from round to round.
            text = ", ".join(
                f"{name}={value!r}"
                for name, value in each.settings.items()
                if "/" not in value
            )
            found.setdefault((each.system, text), each.variant)
    return [
        f"* {who} (first in {name}): {text}\n" for (who, text), name in found.items()
    ]


def main() -> None:
    """Make the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.report")
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    runs = [load(path) for path in options.results]
    write(options.out / "REPORT.md", runs, options.out / "plots")


if __name__ == "__main__":
    main()
