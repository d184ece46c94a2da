"""A message on its way through mail filters into the queue.

Used like a Letter (sysio/intakeline.py); what is written waits until all is there.
Source: docs/NETWORK.md.
"""

from __future__ import annotations

from qsend.core.errors import TempFail
from qsend.core.milter import Discarded, Refusal
from qsend.core.milterfacts import TlsFacts
from qsend.formats.queueexit import QueueExit
from qsend.sysio.filters import Filters, Passed
from qsend.sysio.intakeline import Letter, Queued
from qsend.sysio.runnerline import Intake, ProgramLetter
from qsend.sysio.tls import TlsBytes


class FilteredLetter:
    """One message."""

    def __init__(self, filters: Filters, intake: Intake, received: bytes) -> None:
        """Begin it.

        Args:
            received: our field; filters do not see it, and it goes on top.
        """
        self.ended: Queued | None = None
        self._filters = filters
        self._intake = intake
        self._received = received
        filters.begin()

    def write(self, data: bytes) -> None:
        """Take bytes of the message."""
        self._filters.write(data)

    async def room(self) -> None:
        """There is always room."""

    async def commit(
        self, sender: bytes, recips: tuple[bytes, ...]
    ) -> Queued | Refusal:
        """All was written: have it filtered, and queued unless a filter is against it.

        What a filter discards counts as queued.
        """
        try:
            found = await self._filters.finish(sender, recips)
            if isinstance(found, Refusal):
                return found
            if isinstance(found, Discarded):
                return Queued(code=QueueExit.QUEUED)
            queued = await self._queue(self._intake.begin(), found)
            if queued.code == QueueExit.QUEUED:
                self._filters.tell_queued(found, queued.qp)
            return queued
        finally:
            self._filters.abandon()

    def abort(self) -> None:
        """Forget the message."""
        self._filters.abandon()

    async def _queue(self, letter: Letter | ProgramLetter, passed: Passed) -> Queued:
        try:
            letter.write(self._received)
            for chunk in passed.chunks:
                letter.write(chunk)
                await letter.room()
            return await letter.commit(passed.sender, passed.recips)
        except TempFail:
            letter.abort()
            return Queued(code=QueueExit.WRITE)
        except BaseException:
            letter.abort()
            raise


def tls_facts(tls: TlsBytes | None) -> TlsFacts | None:
    """What filters are told of a client's TLS."""
    cipher = tls.object.cipher() if tls is not None and tls.is_open else None
    if tls is None or cipher is None:
        return None
    return TlsFacts(
        version=(tls.object.version() or "").encode(),
        cipher=cipher[0].encode(),
        bits=cipher[2],
    )
