"""The report: tables, and plots inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import plots, show
from bench.outcome import Outcome

_INTRO = """\
# What was measured

Made by the benchmark suite (`python -m bench`); [README.md](README.md) says how each
number is made and what it does not show. Figures are the median of the rounds with the
least and the most of them. "qsend is so many times as fast" compares round by round.

"""


def write(
    path: Path, machine: Mapping[str, Any], outcomes: Sequence[Outcome], images: Path
) -> None:
    """Write the report to `path` and its plots to `images`, which lies beside it."""
    images.mkdir(parents=True, exist_ok=True)
    drawn = plots.draw(images, outcomes)
    parts = [_INTRO, show.tables(machine, outcomes), "\n\n## Plots\n"]
    parts += [
        f"\n### {title}\n\n![{title}]({images.name}/{name})\n" for title, name in drawn
    ]
    parts += ["\n## Settings\n\n", *settings(outcomes)]
    path.write_text("".join(parts))


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
