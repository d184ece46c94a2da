"""Envelopes: the records of `todo/N`, and the form qmail-queue reads on fd 1.

Must not decide whether an address is good: bytes are kept as they come.
Source: qmail-queue.c main(), qmail-send.c todo_do(); queue_layout.md.
"""

from __future__ import annotations

from qsend.core.errors import LocalProtocolError, QueueCorrupt
from qsend.core.light import TYPE_CHECKING, dataclass
from qsend.formats.queueexit import QueueExit

if TYPE_CHECKING:
    from collections.abc import Sequence

ADDRESS_MAX = 1002
"""Longest envelope address in bytes (qmail-queue.c ADDR, less its NUL)."""

_ID_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Who injected a message, its sender and its recipients, as stored.

    `uid` and `pid` are those of the injecting program ("qp" in the log).
    Addresses are at most ADDRESS_MAX bytes when we wrote them, and hold no NUL.
    """

    uid: int
    pid: int
    sender: bytes
    recips: tuple[bytes, ...]


def render_head(uid: int, pid: int) -> bytes:
    """The two records in front of the addresses."""
    return b"u%d\0p%d\0" % (uid, pid)


def render_todo(envelope: Envelope) -> bytes:
    """Content of `todo/N`, in the order that qmail-queue writes."""
    return render_head(envelope.uid, envelope.pid) + b"".join(
        [b"F", envelope.sender, b"\0", *(b"T%b\0" % recip for recip in envelope.recips)]
    )


def render_wire(sender: bytes, recips: Sequence[bytes]) -> bytes:
    """The envelope as qmail-queue reads it on fd 1.

    Raises: LocalProtocolError when an address holds a NUL: it would cut it.
    """
    if b"\0" in sender or any(b"\0" in recip for recip in recips):
        raise LocalProtocolError("NUL in an envelope address")
    return b"".join([b"F", sender, b"\0", *(b"T%b\0" % r for r in recips), b"\0"])


def parse_todo(content: bytes) -> Envelope:
    """The envelope in a todo file.

    Records may come in any order. A missing u or p counts as 0, as for
    qmail-send; the caller bounds the length of `content`.
    Of several sender records the first counts, as for the readers of info/N.
    Raises: QueueCorrupt on an unknown record, a bad number, no sender record, or
    bytes after the last NUL.
    """
    if content[-1:] != b"\0":
        raise QueueCorrupt("envelope does not end with NUL")
    ids = {b"u": 0, b"p": 0}
    senders: list[bytes] = []
    recips: list[bytes] = []
    for record in content[:-1].split(b"\0"):
        kind, value = record[:1], record[1:]
        if kind == b"T":
            recips.append(value)
        elif kind == b"F":
            senders.append(value)
        elif kind in ids:
            ids[kind] = _parse_id(value)
        else:
            raise QueueCorrupt(f"unknown envelope record {record[:40]!r}")
    if not senders:
        raise QueueCorrupt("envelope without a sender record")
    return Envelope(
        uid=ids[b"u"], pid=ids[b"p"], sender=senders[0], recips=tuple(recips)
    )


def _parse_id(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20 or int(value) > _ID_MAX:
        raise QueueCorrupt(f"bad number in envelope: {value[:40]!r}")
    return int(value)


class EnvelopeReader:
    """Checks the fd 1 form `F<sender>\\0(T<recip>\\0)*\\0` as it arrives.

    Holds no more than a counter: what `feed` returns is to be stored behind
    `render_head`, and is the stored form, without the wire's last NUL. The
    first error stands; later input changes nothing. Input after the last NUL is
    ignored, as qmail-queue never reads it.
    """

    __slots__ = ("_at_record", "_length", "_wanted", "error", "is_complete")

    def __init__(self) -> None:
        self.error = QueueExit.QUEUED
        self.is_complete = False
        self._wanted = ord("F")
        self._at_record = True
        self._length = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; returns those to be stored, b"" after an error.

        After each call `error` is 0 or the exit code: QueueExit.FORMAT for a record
        of the wrong kind, QueueExit.TOO_LONG for an address over ADDRESS_MAX bytes.
        """
        if self.is_complete:
            return b""
        at, end = 0, len(chunk)
        while at < end and not self.error and not self.is_complete:
            if self._at_record:
                at = self._begin_record(chunk, at)
            else:
                at = self._skip_address(chunk, at)
        return b"" if self.error else chunk[: at - self.is_complete]

    def finish(self) -> QueueExit:
        """The exit code once the input has ended: 0, or QueueExit.READ if cut short."""
        if not self.error and not self.is_complete:
            self.error = QueueExit.READ
        return self.error

    def _begin_record(self, chunk: bytes, at: int) -> int:
        kind = chunk[at]
        if kind == self._wanted:
            self._at_record = False
            self._wanted = ord("T")
            self._length = 0
        elif kind == 0 and self._wanted == ord("T"):
            self.is_complete = True
        else:
            self.error = QueueExit.FORMAT
        return at + 1

    def _skip_address(self, chunk: bytes, at: int) -> int:
        # Look no further than a longest address and its NUL may reach.
        room = ADDRESS_MAX - self._length
        found = chunk.find(b"\0", at, at + room + 1)
        if found >= 0:
            self._at_record = True
            return found + 1
        taken = min(room + 1, len(chunk) - at)
        self._length += taken
        if self._length > ADDRESS_MAX:
            self.error = QueueExit.TOO_LONG
        return at + taken
