"""Mail filters for a program that serves one client and has no loop.

Source: docs/NETWORK.md; tcp-environ(5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from qsend.core.milter import Discarded, Refusal
from qsend.core.milterfacts import ClientFacts
from qsend.core.smtpdsteps import Filter
from qsend.formats.milters import Milter
from qsend.sysio.filters import Filters, Passed
from qsend.sysio.milterpool import MilterPool


class BlockingFilters:
    """As Filters, each call to its end."""

    def __init__(
        self,
        home: str,
        milters: Iterable[Milter],
        me: bytes,
        environ: Mapping[bytes, bytes],
        tell: Callable[[str], None],
    ) -> None:
        """For the client that `environ` speaks of; `me` is our name."""
        self._me = me
        self._environ = environ
        self._loop = asyncio.new_event_loop()
        self._pool = MilterPool()
        self._filters = Filters(home, milters, self._pool, tell)
        self.begin = self._filters.begin
        self.write = self._filters.write
        self.abandon = self._filters.abandon
        self.tell_queued = self._filters.tell_queued

    def recipient(self, asked: Filter) -> bytes | None:
        """The reply to a recipient that they do not take."""
        environ = self._environ
        port = environ.get(b"TCPREMOTEPORT", b"")
        client = ClientFacts(
            server=self._me,
            address=environ.get(b"TCPREMOTEIP", b"0.0.0.0").decode("latin-1"),
            port=int(port) if port.isdigit() and len(port) < 6 else 0,
            host=environ.get(b"TCPREMOTEHOST") or None,
            helo=asked.helo,
        )
        refusal = self._loop.run_until_complete(self._filters.recipient(client, asked))
        return None if refusal is None else refusal.text

    def finish(
        self, sender: bytes, recips: Sequence[bytes]
    ) -> Passed | Refusal | Discarded:
        """What the filters make of the message; then call `abandon`."""
        return self._loop.run_until_complete(self._filters.finish(sender, recips))

    def close(self) -> None:
        """The client has gone."""
        self._filters.close()
        self._pool.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
