"""From a stream of log lines to records that syslog takes whole.

Source: splogger(8), splogger.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

RECORD_MAX = 799
"""Bytes of one record: syslog cuts longer ones short."""
_PRINTABLE = bytes(byte if 32 <= byte <= 126 else ord("?") for byte in range(256))


class Urgency(Enum):
    """What a line's first word says of it."""

    INFO = "info"
    WARNING = "warning"
    ALERT = "alert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A line, or a piece of one; `is_first` is false from the second piece on."""

    text: str
    is_first: bool
    urgency: Urgency


class LogCutter:
    """Cuts what is fed into records; an unfinished line waits for its end."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_first = True
        self._urgency = Urgency.INFO

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._records(line)
            self._is_first = True
        while len(self._rest) > RECORD_MAX:
            piece, self._rest = self._rest[:RECORD_MAX], self._rest[RECORD_MAX:]
            yield self._record(piece)

    def _records(self, line: bytes) -> Iterator[Record]:
        for at in range(0, len(line), RECORD_MAX):
            yield self._record(line[at : at + RECORD_MAX])

    def _record(self, piece: bytes) -> Record:
        is_first = self._is_first
        if is_first:
            self._urgency = _urgency(piece)
        self._is_first = False
        text = piece.translate(_PRINTABLE).decode("ascii")
        return Record(text=text, is_first=is_first, urgency=self._urgency)


def _urgency(line: bytes) -> Urgency:
    for urgency in (Urgency.ALERT, Urgency.WARNING):
        if line.startswith(urgency.value.encode() + b":"):
            return urgency
    return Urgency.INFO
