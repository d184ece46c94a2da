"""A share of each loop turn for callbacks that may be made expensive by a peer.

A client that floods with tiny frames costs processor time, which no byte limit
bounds. Descriptors registered here are served until their time of this turn is
used up; the rest is ready again in the next turn, after everybody else's.
"""

from __future__ import annotations

from collections.abc import Callable

from qsend.sysio import clock
from qsend.sysio.loop import Loop

TURN_S = 0.02
"""Time for all of them in one turn: others wait no longer than for a disk."""


class TurnBudget:
    """A loop, as Endpoint needs it, whose callbacks share TURN_S per turn."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._left_s = TURN_S
        loop.at_turn_end(self._refill)

    def register(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call `callback(ready mask)` when `fd` is ready and time is left."""

        def run(ready: int) -> None:
            if self._left_s <= 0:
                return  # level-triggered: the next turn reports it again
            start_mono = clock.mono()
            callback(ready)
            self._left_s -= clock.mono() - start_mono

        self._loop.register(fd, mask, run)

    def modify(self, fd: int, mask: int) -> None:
        """Wait for another mask."""
        self._loop.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """Stop waiting."""
        self._loop.unregister(fd)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn."""
        self._loop.call_soon(callback)

    def _refill(self) -> None:
        self._left_s = TURN_S
