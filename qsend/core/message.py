"""A message in memory: its jobs, and the deliveries under way.

These objects have identity and change; only core/manager.py changes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType

from qsend.core.destinations import Destination
from qsend.core.model import Channel, DelId, FileIdentity, MessId
from qsend.core.retry import next_retry


class Phase(Enum):
    """Where a message stands between `todo` and its end."""

    FIRST = auto()
    """In todo; its recipients are attempted from memory, nothing is written."""
    PREPARING = auto()
    """info, local and remote are being written; results wait."""
    QUEUED = auto()
    """Preprocessed (S5)."""
    ENDING = auto()
    """The last plan runs; the number is not free before clean has answered."""


@dataclass(slots=True)
class Job:
    """One message worked on one channel: a pass over its recipients.

    `waiting` and `running` count recipients; `left` those deferred in this pass.
    `settled` holds (offset, bounce paragraph or None for a success) of results
    not yet in a plan. `addresses` maps offsets to addresses while the message is
    FIRST, and is empty later: a waiting recipient is then read from disk.
    `size` is the length of the channel file these make. `retry_due` is when what is
    left is tried again; `again` says that an operator wants it at once.
    """

    channel: Channel
    retry_due: int
    waiting: int = 0
    running: int = 0
    left: int = 0
    settled: list[tuple[int, bytes | None]] = field(default_factory=list)
    addresses: dict[int, bytes] = field(default_factory=dict)
    size: int = 0
    again: bool = False

    @property
    def outstanding(self) -> int:
        """Recipients of the pass without a result."""
        return self.waiting + self.running


@dataclass(frozen=True, slots=True)
class Note:
    """What must be known of a local recipient besides the stored address.

    `original` is the address that a bounce shows. `is_unknown`: there is no such
    recipient, and no attempt is to be made.
    """

    original: bytes
    is_unknown: bool = False


NO_NOTES: Mapping[int, Note] = MappingProxyType({})


@dataclass(slots=True)
class Message:
    """One message that has jobs or plans; others are only in the due heaps.

    `files` are the channels that still have (or will have) a recipient file.
    `birth` is the arrival, wall clock seconds. `identity` and `birth_ns` are
    known while the message comes from todo. `notes` are by the offset of the
    recipient's record in the local file.
    """

    messid: MessId
    sender: bytes
    birth: int
    phase: Phase
    jobs: dict[Channel, Job]
    files: set[Channel]
    birth_ns: int = 0
    identity: FileIdentity | None = None
    bouncing: bool = False
    plans: int = 0
    seen_again: bool = False
    notes: Mapping[int, Note] = field(default_factory=lambda: NO_NOTES)


@dataclass(slots=True)
class Attempt:
    """One slot in use: a local delivery, or a transaction of several recipients.

    `tried` is False when only a verdict is passed on; `crashes` is how many the message
    had had before.
    """

    channel: Channel
    destination: Destination
    outstanding: int
    tried: bool = True
    crashes: int = 0


@dataclass(slots=True)
class Delivery:
    """One recipient being attempted."""

    delid: DelId
    messid: MessId
    offset: int
    recip: bytes
    dying: bool
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class StartDelivery:
    """Begin one attempt: a message for recipients of one destination.

    `recips` are (delivery, offset, address); an empty address is read from the
    channel's file at the offset first. `key` names the destination. A `verdict` is
    the deferral to report without trying: the recipient expired while it waited.
    """

    messid: MessId
    channel: Channel
    key: bytes
    sender: bytes
    recips: tuple[tuple[DelId, int, bytes], ...]
    alone: bool
    verdict: bytes | None = None


@dataclass(frozen=True, slots=True)
class LoadTodo:
    """Read todo/N and answer with `todo_loaded` or `load_failed`."""

    messid: MessId


@dataclass(frozen=True, slots=True)
class LoadJob:
    """Read info/N and the channel's file; answer `job_loaded` or `load_failed`.

    `due` is the time it was scheduled for; `only` destinations of which one must be
    among its recipients, or None. `is_next`: it was parked, and it is its turn.
    """

    messid: MessId
    channel: Channel
    due: int
    only: frozenset[bytes] | None = None
    is_next: bool = False


@dataclass(frozen=True, slots=True)
class SaveHolds:
    """What is held changed; store it so that a restart keeps it."""


@dataclass(frozen=True, slots=True)
class ForgetSilence:
    """Hosts that did not answer are to be tried again by those who know of them."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing is known of N any more; drop what is cached for it."""

    messid: MessId


def add_jobs(
    message: Message,
    recips: Sequence[tuple[Channel, bytes, bytes]],
    notes: Mapping[int, Note],
    now: int,
) -> list[tuple[Job, bytes, int]]:
    """Give a message from todo its jobs, with the offsets their records will have.

    Args:
        recips: (channel, stored address, destination key) in envelope order.
        notes: by position in `recips`, of local ones only.
    Returns: (job, destination key, offset) of each recipient, to be put waiting.
    """
    waits = []
    by_offset = {}
    for at, (channel, address, key) in enumerate(recips):
        job = message.jobs.get(channel)
        if job is None:
            due = next_retry(message.birth, now, channel)
            job = message.jobs[channel] = Job(channel, due)
            message.files.add(channel)
        waits.append((job, key, job.size))
        if at in notes:
            by_offset[job.size] = notes[at]
        job.addresses[job.size] = address
        job.size += len(address) + 2
    message.notes = by_offset or NO_NOTES
    return waits
