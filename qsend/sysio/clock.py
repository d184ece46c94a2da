"""The two clocks: wall time for what is stored, monotonic time for waiting."""

from __future__ import annotations

import time


def now() -> int:
    """Wall clock, whole seconds since the epoch."""
    return int(time.time())


def now_ns() -> int:
    """Wall clock, nanoseconds since the epoch."""
    return time.time_ns()


def mono() -> float:
    """Monotonic clock, seconds; only differences mean anything."""
    return time.monotonic()
