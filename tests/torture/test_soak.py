"""The long run in short: everything accounted for, and growth is seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.torture import kills, soak
from tests.torture.soakfigures import MEMORY, Figures
from tests.tree.conftest import installation, tree
from tests.tree.harness import Tree

__all__ = ["installation", "tree"]
COUNT = 400


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.serial
def test_mixed_load_with_kills_and_reloads_loses_nothing(
    tree: Tree, tmp_path: Path
) -> None:
    heard: list[int] = []
    books = soak.run(tree, tmp_path, COUNT, heard.append)
    sys.stdout.write(f"{books.counts}\n{books.figures.table()}")
    assert books.counts["answered"] == COUNT
    assert books.counts["reloads"] > 0
    assert books.counts["kills"] > 0
    assert books.counts["failure"] > 0
    assert books.counts["deferral"] > 0
    assert heard
    assert (MEMORY, "qmail-send") in books.figures.values
    kills.sweep(tree)


@pytest.mark.parametrize(
    ("figure", "early", "late", "is_flat"),
    [
        (MEMORY, 10_000, 11_500, True),
        (MEMORY, 10_000, 12_500, False),
        ("descriptors", 40, 47, True),
        ("descriptors", 40, 48, False),
        ("latency, ms", 100, 190, True),
        ("latency, ms", 100, 210, False),
        ("CPU for a message, ms", 8, 9, True),
        ("CPU for a message, ms", 8, 11, False),
    ],
)
def test_growth_from_the_second_quarter_to_the_last_is_told(
    figure: str, early: float, late: float, is_flat: bool
) -> None:
    figures = Figures()
    for quarter, value in enumerate((late * 9, early, late * 9, late)):
        figures.note(figure, "x", quarter, value)
    assert bool(figures.grown()) is not is_flat
