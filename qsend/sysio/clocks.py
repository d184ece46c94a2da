"""The type of the module clock, for those who take one."""

from __future__ import annotations

from typing import Protocol


class Clocks(Protocol):
    """Both clocks, as the module clock has them; tests bring their own."""

    def now(self) -> int:
        """Wall clock, whole seconds since the epoch."""

    def mono(self) -> float:
        """Monotonic clock, seconds."""
