"""How long a client may be silent: one timer that seldom moves.

A timer made and cancelled for every wait costs more than reading a command does.
This one stays where it is while more time is given, and looks again when it is due.
Belongs to an asyncio loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Patience:
    """Calls `on_late` once when a limit has passed and no other was set since."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_late: Callable[[], None]
    ) -> None:
        """Without a limit yet."""
        self._loop = loop
        self._on_late = on_late
        self._due_s = self._timer_s = 0.0
        """When time is up, and when that is looked at, in the loop's time."""
        self._timer: asyncio.TimerHandle | None = None

    def give(self, limit_s: float) -> None:
        """So many seconds from now; what was given before counts no more."""
        self._due_s = self._loop.time() + limit_s
        if self._timer is None or self._timer_s > self._due_s:
            self._set_timer()

    def cancel(self) -> None:
        """There is no limit any more; harmless when repeated."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self.cancel()
        self._timer_s = self._due_s
        self._timer = self._loop.call_at(self._timer_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._due_s:
            self._set_timer()
        else:
            self._on_late()
