"""Steps of the wall clock, told from the passing of time by the monotonic one."""

from __future__ import annotations

DRIFT_S = 30
"""What a clock that is being corrected slowly may gain or lose between two looks."""


class ClockSteps:
    """What the clock was set by since it was first looked at."""

    def __init__(self, now: int, now_mono: float, memory_s: int) -> None:
        """A step forward counts for `memory_s`: what is older than that really is."""
        self._lag_s = now - now_mono
        self._memory_s = memory_s
        self._forward: list[tuple[float, int]] = []

    def look(self, now: int, now_mono: float) -> int:
        """Seconds by which the clock was set since the last look; 0 for drift."""
        step = round(now - now_mono - self._lag_s)
        self._lag_s = now - now_mono
        self._forward = [
            each for each in self._forward if each[0] + self._memory_s > now_mono
        ]
        if abs(step) <= DRIFT_S:
            return 0
        if step > 0:
            self._forward.append((now_mono, step))
        else:
            self._take_back(-step)
        return step

    @property
    def ahead_s(self) -> int:
        """How much older than it is a file may look, for the clock was set forward."""
        return sum(step for _, step in self._forward)

    def _take_back(self, back: int) -> None:
        """What is set back was wrong when it was set forward."""
        while back > 0 and self._forward:
            at_mono, step = self._forward.pop()
            if step > back:
                self._forward.append((at_mono, step - back))
            back -= step
