"""Medians, percentiles, ratios, and the depth of a queue over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from bench.stats import Spread, depth, percentile, ratios, spread


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([], None),
        ([math.nan], None),
        ([2.0], Spread(2.0, 2.0, 2.0)),
        ([3.0, 1.0, 2.0], Spread(2.0, 1.0, 3.0)),
        ([1.0, math.nan, 3.0], Spread(2.0, 1.0, 3.0)),
    ],
)
def test_spread(values: Sequence[float], want: Spread | None) -> None:
    assert spread(values) == want


@pytest.mark.parametrize(
    ("percent", "want"), [(0, 1.0), (50, 50.0), (99, 99.0), (99.5, 100.0), (100, 100.0)]
)
def test_percentile_is_one_of_the_values(percent: float, want: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == want


def test_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(percentile([], 50))


def test_ratios_compare_only_rounds_that_both_have() -> None:
    ours, theirs = {1: 10.0, 2: 30.0, 3: 50.0}, {1: 5.0, 2: 10.0, 4: 1.0}
    assert ratios(ours, theirs) == Spread(2.5, 2.0, 3.0)
    assert ratios(ours, {4: 1.0}) is None


def test_depth_rises_with_what_is_queued_and_ends_at_what_waits() -> None:
    found = depth([10.0, 11.0, 12.0], [13.0, 14.0], points=4)
    assert found == [(0.0, 1), (1.0, 2), (2.0, 3), (3.0, 2), (4.0, 1)]
    assert depth([], []) == []


@pytest.mark.parametrize(
    ("value", "want"),
    [(Spread(1.0, 1.0, 1.0), "1.0"), (Spread(2.0, 1.5, 2.5), "2.0 (1.5-2.5)")],
)
def test_a_spread_is_shown_when_there_is_one(value: Spread, want: str) -> None:
    assert value.show(1) == want
