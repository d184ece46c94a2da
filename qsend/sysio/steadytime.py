"""What send does when the clock is set: nothing expires early, nothing waits for long.

Ages are told by file times, which the wall clock gives. After a step forward a message
that is being received looks days old, and one that came just now past its lifetime:
both get as much longer. After a step back the times of attempts move with the clock.
"""

from __future__ import annotations

from collections.abc import Callable

from qsend.core import logline
from qsend.core.clocksteps import ClockSteps
from qsend.core.manager import Manager
from qsend.sysio import clock
from qsend.sysio.clocks import Clocks
from qsend.sysio.sweeper import OSSIFIED_S


class SteadyTime:
    """Looks at the clocks, and adapts the manager."""

    def __init__(
        self, manager: Manager, say: Callable[[bytes], None], clocks: Clocks = clock
    ) -> None:
        """`say` writes a log line, one for each step."""
        self._manager = manager
        self._say = say
        self._clocks = clocks
        memory_s = max(OSSIFIED_S, manager.settings.lifetime)
        self._steps = ClockSteps(clocks.now(), clocks.mono(), memory_s)

    def look(self) -> None:
        """Call it whenever the wall clock is to be used."""
        step = self._steps.look(self._clocks.now(), self._clocks.mono())
        self._manager.attempts.ahead_s = self._steps.ahead_s
        if step < 0:
            for dues in self._manager.dues.values():
                dues.shift(step)
            self._manager.backlog.shift(step)
        if step:
            way = "forward" if step > 0 else "back"
            self._say(
                logline.warning(f"the clock was set {way} by {abs(step)} seconds")
            )

    def now(self) -> int:
        """The wall clock, without what it was set forward by of late."""
        self.look()
        return self._clocks.now() - self._steps.ahead_s
