"""What was last said of deferred messages, for `qsend queue`; bounded, in memory."""

from __future__ import annotations

from qsend.core.model import MessId

MESSAGES_MAX = 10_000
TEXT_MAX = 300


class LastReports:
    """The last deferral of each of the messages deferred most recently."""

    def __init__(self) -> None:
        self._texts: dict[MessId, bytes] = {}

    def note(self, messid: MessId, text: bytes) -> None:
        """Remember the first TEXT_MAX bytes of a deferral."""
        self._texts.pop(messid, None)
        self._texts[messid] = text[:TEXT_MAX]
        if len(self._texts) > MESSAGES_MAX:
            del self._texts[next(iter(self._texts))]

    def get(self, messid: MessId) -> bytes | None:
        """What was said last, or None when it is not known any more."""
        return self._texts.get(messid)

    def forget(self, messid: MessId) -> None:
        """The message has ended."""
        self._texts.pop(messid, None)
