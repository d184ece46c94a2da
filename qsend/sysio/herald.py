"""Tells the service manager how the tree does: readiness, reloads, signs of life.

What counts as alive is decided in core/pulse.py. Without a service manager that
listens it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from qsend.core.childtable import State
from qsend.core.pulse import Pulse, beat, period_s
from qsend.formats import supervision
from qsend.sysio import clock
from qsend.sysio.loop import Loop
from qsend.sysio.supervisor import Supervisor


class Herald:
    """start's voice to the outside."""

    def __init__(
        self,
        loop: Loop,
        supervisor: Supervisor,
        watchdog_s: float | None,
        ask: Callable[[], None],
        look: Callable[[], tuple[State, bool]],
    ) -> None:
        """`ask` asks send for an answer; `look` tells its state and if all stops."""
        self._loop = loop
        self._supervisor = supervisor
        self._period_s = period_s(watchdog_s)
        self._ask = ask
        self._look = look
        self._pulse = Pulse()
        self._is_ready = False

    def ready(self) -> None:
        """The tree serves now, for the first time."""
        if self._is_ready or not self._supervisor.listens:
            return
        self._is_ready = True
        self._supervisor.tell(supervision.READY, supervision.status(b"serving"))
        self._beat()

    def send_is_new(self) -> None:
        """Another send owes no answers to what the one before was asked."""
        self._pulse = Pulse()

    def answered(self, text: bytes) -> None:
        """send has answered, and says how it does."""
        self._pulse = Pulse()
        self._supervisor.tell(supervision.ALIVE, supervision.status(text))

    def reloading(self) -> None:
        """New controls are being read."""
        if self._is_ready:
            self._supervisor.tell(supervision.reloading(clock.mono()))

    def reloaded(self, text: bytes) -> None:
        """They are in force, or are not: `text` says it."""
        if self._is_ready:
            self._supervisor.tell(supervision.READY, supervision.status(text))

    def stopping(self, within_s: float) -> None:
        """The end has begun."""
        self._supervisor.tell(
            supervision.stopping(within_s), supervision.status(b"exiting")
        )

    def failing(self, text: bytes) -> None:
        """Say why there will be an end."""
        self._supervisor.tell(supervision.status(text))

    def close(self) -> None:
        """Say nothing more."""
        self._supervisor.close()

    def _beat(self) -> None:
        """At regular times, from readiness on."""
        state, stopping = self._look()
        now = beat(self._pulse, state, clock.mono(), stopping=stopping)
        self._pulse = now.pulse
        if now.asks:
            self._ask()
        if now.is_alive:
            self._supervisor.tell(supervision.ALIVE)
        self._loop.call_later(self._period_s, self._beat)
