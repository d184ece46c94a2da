"""Connections to mail filters that wait for the next client.

Source: docs/NETWORK.md.
"""

from __future__ import annotations

from collections import defaultdict

from qsend.formats.milters import Milter
from qsend.sysio import clock
from qsend.sysio.milterlink import Link, connect

IDLE_MAX = 4
"""Connections that are kept for each filter; each may cost it a thread."""
IDLE_S = 60.0


class MilterPool:
    """What is idle, of all filters; belongs to one process."""

    def __init__(self) -> None:
        self._idle: dict[str, list[tuple[Link, float]]] = defaultdict(list)

    async def take(self, milter: Milter) -> tuple[Link, bool]:
        """A connection, and whether it is new. Raises: LinkBroken."""
        waiting = self._idle[milter.name]
        while waiting:
            link, since = waiting.pop()
            if not link.is_lost and clock.mono() - since < IDLE_S:
                return link, False
            link.close()
        return await connect(milter), True

    def give(self, milter: Milter, link: Link) -> None:
        """A client does not need it any more."""
        waiting = self._idle[milter.name]
        if len(waiting) >= IDLE_MAX:
            waiting.pop(0)[0].close()
        waiting.append((link, clock.mono()))

    def close(self) -> None:
        """Forget all of them."""
        for waiting in self._idle.values():
            for link, _ in waiting:
                link.close()
        self._idle.clear()
