"""Finding the messages in todo/ that enqueue did not tell of.

A foreign qmail-queue tells by lock/trigger, which stays unread for a moment after
each scan, so that a storm of pulls costs few of them. A crash may tell nobody: todo/ is
read at the start and then from time to time. Source: qmail-send.c todo_do().
"""

from __future__ import annotations

import math
from collections.abc import Callable

from qsend.core import logline
from qsend.core.model import MessId
from qsend.sysio import clock
from qsend.sysio.fsq import Queue
from qsend.sysio.loop import READ, Loop, Timer
from qsend.sysio.trigger import Trigger

RESCAN_S = 1500.0
"""todo/ is read this often without being told (qmail-send.c SLEEP_TODO)."""
TRIGGER_PAUSE_S = 0.1
"""Least time between two scans after triggers."""
RETRY_S = 1.0
"""From one attempt to open the trigger to the next."""


class TodoScan:
    """Reads todo/ when it is time, and tells of every message there."""

    def __init__(
        self,
        loop: Loop,
        queue: Queue,
        trigger: Trigger,
        known: Callable[[MessId], None],
        say: Callable[[bytes], None],
    ) -> None:
        """Open nothing and read nothing yet; `say` takes a line of the log."""
        self._loop = loop
        self._queue = queue
        self._trigger = trigger
        self._known = known
        self._say = say
        self._timer: Timer | None = None
        self._scanned_mono = -math.inf
        self._is_deaf = False

    def start(self) -> None:
        """Listen to the trigger, and scan."""
        self._loop.register(self._trigger.fileno(), READ, self._triggered)
        self.scan()

    def scan(self) -> None:
        """Scan now, and again after RESCAN_S. A todo/ that cannot be read is told."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(RESCAN_S, self.scan)
        self._scanned_mono = clock.mono()
        try:
            for messid in self._queue.list_todo():
                self._known(messid)
        except OSError as exc:
            self._say(logline.alert(f"unable to opendir todo: {exc.strerror}"))

    def _triggered(self, _mask: int) -> None:
        self._loop.unregister(self._trigger.fileno())
        pause_s = self._scanned_mono + TRIGGER_PAUSE_S - clock.mono()
        if pause_s > 0:
            self._loop.call_later(pause_s, self._rescan)
        else:
            self._rescan()

    def _rescan(self) -> None:
        try:
            self._trigger.reset()
        except OSError as exc:
            self._miss(exc)
        else:
            self._is_deaf = False
            self.start()

    def _miss(self, exc: OSError) -> None:
        """Nobody can pull now; the scan after the next reset sees what came."""
        if not self._is_deaf:
            self._is_deaf = True
            text = f"unable to open lock/trigger: {exc.strerror}; will try again"
            self._say(logline.warning(text))
        self._loop.call_later(RETRY_S, self._rescan)
