"""Medians, percentiles and ratios of what rounds gave. No I/O."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures, and the least and greatest of them."""

    median: float
    least: float
    most: float

    def show(self, digits: int) -> str:
        """As "median (least-most)"; the median alone when there is only one."""
        median = f"{self.median:.{digits}f}"
        if self.least == self.most:
            return median
        return f"{median} ({self.least:.{digits}f}-{self.most:.{digits}f})"


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of all figures that are numbers; None of none."""
    found = [each for each in values if not math.isnan(each)]
    if not found:
        return None
    return Spread(statistics.median(found), min(found), max(found))


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of `values` that `percent` of them do not exceed; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(rank, 1) - 1]


def ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """The ratio ours/theirs round by round: rounds that only one has do not count."""
    both = sorted(ours.keys() & theirs.keys())
    return spread([ours[number] / theirs[number] for number in both if theirs[number]])


def depth(
    queued: Sequence[float], delivered: Sequence[float], points: int = 200
) -> list[tuple[float, int]]:
    """How many messages waited, at `points` moments from the first to the last event.

    Args:
        queued, delivered: when each message was accepted, and was delivered.
    Returns: (seconds since the first event, messages that wait).
    """
    events = sorted([(at, 1) for at in queued] + [(at, -1) for at in delivered])
    if not events:
        return []
    begin, end = events[0][0], events[-1][0]
    step = (end - begin) / points or 1.0
    found: list[tuple[float, int]] = []
    waiting = index = 0
    for point in range(points + 1):
        until = end if point == points else begin + point * step
        while index < len(events) and events[index][0] <= until:
            waiting += events[index][1]
            index += 1
        found.append((until - begin, waiting))
    return found
