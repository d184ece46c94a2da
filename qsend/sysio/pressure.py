"""send's word to enqueue that it cannot take up what is coming in.

Source: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

from qsend.formats import injection
from qsend.sysio.endpoint import Endpoint

FULL_AT = 50_000
"""Messages in todo that send knows and has not taken up: a minute's work, and some
megabytes. Messages that wait for a retry, or in a long queue, do not count."""
RELIEVED_AT = FULL_AT // 2


class Pressure:
    """Tells enqueue when intake must pause, and when it may go on."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None
        self._is_pressed = False

    def attach(self, endpoint: Endpoint) -> None:
        """Tell this enqueue from now on; it takes for granted that all is well."""
        self._endpoint = endpoint
        self._is_pressed = False

    def measure(self, backlog: int) -> None:
        """So many messages wait to be taken up."""
        limit = RELIEVED_AT if self._is_pressed else FULL_AT
        if (backlog > limit) is self._is_pressed or self._endpoint is None:
            return
        self._is_pressed = not self._is_pressed
        self._endpoint.send(injection.render_pressure(is_pressed=self._is_pressed))
