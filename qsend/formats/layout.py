"""The table of everything in the queue directory.

queuemaker makes and checks the fixed entries, queue_layout.md tells operators
about all of them; a test holds the three together.
Source: qmail hier.c, INTERNALS sections 1 and 2; queue_layout.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from qsend.core.model import SPLIT


class Kind(Enum):
    """What sort of thing an entry is; the value is how documents call it."""

    DIR = "directory"
    FILE = "file"
    FIFO = "fifo"


class Role(Enum):
    """The account that owns an entry; the group is always that of qmailq."""

    QMAILQ = "qmailq"
    QMAILR = "qmailr"
    QMAILS = "qmails"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A fixed entry, made once by `qsend setup`.

    `path` is relative to the queue directory, "." for the directory itself.
    `split` adds the subdirectories 0 to 22, with the same owner and mode. `size`
    is the exact size of a file in bytes, where that is fixed.
    """

    path: str
    kind: Kind
    owner: Role
    mode: int
    purpose: str
    split: bool = False
    size: int | None = None

    def paths(self) -> list[str]:
        """The entry itself, then its subdirectories."""
        below = range(SPLIT) if self.split else range(0)
        return [self.path, *(f"{self.path}/{number}" for number in below)]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFile:
    """A file that comes and goes with a message.

    `path` uses N for the message number and H for N modulo 23. `creates`,
    `reads` and `deletes` name processes. `fields` is the file's content.
    """

    path: str
    owner: Role
    mode: int
    creates: str
    reads: str
    deletes: str
    fields: str


TCPTO_SIZE = 1024
"""lock/tcpto holds 64 records of 16 bytes (qmail tcpto.c)."""

_D, _F, _P = Kind.DIR, Kind.FILE, Kind.FIFO
_Q, _R, _S = Role.QMAILQ, Role.QMAILR, Role.QMAILS


def _entry(
    path: str, kind: Kind, owner: Role, mode: int, purpose: str, *, split: bool = False
) -> Entry:
    size = {"lock/tcpto": TCPTO_SIZE}.get(path)
    return Entry(
        path=path,
        kind=kind,
        owner=owner,
        mode=mode,
        purpose=purpose,
        split=split,
        size=size,
    )


ENTRIES = (
    _entry(".", _D, _Q, 0o750, "the queue"),
    _entry("pid", _D, _Q, 0o700, "message files that have no number yet"),
    _entry("mess", _D, _Q, 0o750, "messages", split=True),
    _entry("intd", _D, _Q, 0o700, "envelopes being written"),
    _entry("todo", _D, _Q, 0o750, "envelopes of messages not yet preprocessed"),
    _entry("info", _D, _S, 0o700, "senders; mtime is the birth", split=True),
    _entry("local", _D, _S, 0o700, "local recipients; mtime is due", split=True),
    _entry("remote", _D, _S, 0o700, "remote recipients; mtime is due", split=True),
    _entry("bounce", _D, _S, 0o700, "failures collected so far"),
    _entry("aside", _D, _Q, 0o750, "damaged messages, for the operator"),
    _entry("lock", _D, _Q, 0o750, "what processes meet at"),
    _entry("lock/sendmutex", _F, _S, 0o600, "locked while a queue manager runs"),
    _entry("lock/tcpto", _F, _R, 0o644, "hosts that could not be connected"),
    _entry("lock/trigger", _P, _S, 0o622, "a byte here means: look into todo"),
)
"""The fixed entries, parents before children."""

QUEUE_FILES = (
    QueueFile(
        path="pid/*",
        owner=_Q,
        mode=0o644,
        creates="qmail-queue; enqueue where O_TMPFILE is missing",
        reads="nobody",
        deletes="its creator; clean after 36 hours",
        fields="the beginning of a message",
    ),
    QueueFile(
        path="mess/H/N",
        owner=_Q,
        mode=0o644,
        creates="enqueue, qmail-queue",
        reads="send and lspawn open it, remote and local read that descriptor",
        deletes="clean; its creator when the injection fails",
        fields="one Received line, then the message as it came",
    ),
    QueueFile(
        path="intd/N",
        owner=_Q,
        mode=0o644,
        creates="enqueue, qmail-queue",
        reads="nobody",
        deletes="clean; its creator when the injection fails",
        fields="u<uid>NUL p<pid>NUL F<sender>NUL, then T<recip>NUL per recipient",
    ),
    QueueFile(
        path="todo/N",
        owner=_Q,
        mode=0o644,
        creates="enqueue, qmail-queue: a hard link to intd/N",
        reads="send",
        deletes="clean",
        fields="the same file as intd/N",
    ),
    QueueFile(
        path="info/H/N",
        owner=_S,
        mode=0o600,
        creates="send",
        reads="send, qmail-qread",
        deletes="send",
        fields="F<sender>NUL, maybe notes on recipients; mtime is the birth",
    ),
    QueueFile(
        path="local/H/N",
        owner=_S,
        mode=0o600,
        creates="send",
        reads="send, qmail-qread",
        deletes="send",
        fields="T<recip>NUL per recipient, D<recip>NUL when done; mtime is due",
    ),
    QueueFile(
        path="remote/H/N",
        owner=_S,
        mode=0o600,
        creates="send",
        reads="send, qmail-qread",
        deletes="send",
        fields="as local/H/N",
    ),
    QueueFile(
        path="bounce/N",
        owner=_S,
        mode=0o600,
        creates="send",
        reads="send",
        deletes="send",
        fields="one paragraph per failed recipient, each beginning with <",
    ),
    QueueFile(
        path="aside/N.TIME/",
        owner=_Q,
        mode=0o770,
        creates="clean",
        reads="the operator",
        deletes="the operator",
        fields="mess, intd, todo, info, local, remote, bounce of N; reason: one line",
    ),
)
"""What a message may have on disk, in the order in which it appears."""
