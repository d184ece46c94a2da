"""Plans: the ordered durable steps that change one message's queue files.

The order is the proof: a crash after any step leaves a state from which nothing is
lost and at most what was in flight is delivered again. The executor does the steps
of one plan in order; a step that must be durable before the next is followed by
Sync. Source: queue_layout.md; tests cut every plan after each prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from qsend.core.message import Note
from qsend.core.model import Channel, FileIdentity, MessId


@dataclass(frozen=True, slots=True)
class WriteInfo:
    """Create info/N with the sender and the notes on local recipients (by the
    offset of their records); `birth_ns` becomes its mtime.
    """

    sender: bytes
    birth_ns: int
    notes: Mapping[int, Note]


@dataclass(frozen=True, slots=True)
class WriteRecips:
    """Create the channel's file from (is done, address) records, in order."""

    channel: Channel
    records: tuple[tuple[bool, bytes], ...]


@dataclass(frozen=True, slots=True)
class Sync:
    """All this plan did before is durable before it goes on."""


@dataclass(frozen=True, slots=True)
class SyncLater:
    """All this plan did before becomes durable within 100 ms; it goes on."""


@dataclass(frozen=True, slots=True)
class RemoveTodo:
    """Have clean remove intd/N and todo/N, durably."""


@dataclass(frozen=True, slots=True)
class AppendBounce:
    """Add paragraphs to bounce/N."""

    text: bytes


@dataclass(frozen=True, slots=True)
class MarkDone:
    """Turn T into D at these offsets of the channel's file."""

    channel: Channel
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetDue:
    """Store the next attempt as the mtime of the channel's file."""

    channel: Channel
    due: int


@dataclass(frozen=True, slots=True)
class UnlinkRecips:
    """Remove the channel's file: nothing is left to do there."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class SendBounce:
    """Queue the bounce of bounce/N, if there is one, for a message from `sender`."""

    sender: bytes


@dataclass(frozen=True, slots=True)
class UnlinkBounce:
    """Remove bounce/N."""


@dataclass(frozen=True, slots=True)
class Say:
    """Write this line to the delivery log."""

    line: bytes


@dataclass(frozen=True, slots=True)
class UnlinkInfo:
    """Remove info/N: from here on N is no message any more."""


@dataclass(frozen=True, slots=True)
class RemoveMess:
    """Have clean remove what is left: intd/N, todo/N, durably; then mess/N.

    `identity` is that of the file meant; None when info/N proved until now that
    mess/N is this message's.
    """

    identity: FileIdentity | None


@dataclass(frozen=True, slots=True)
class SetAside:
    """Have clean move the damaged message's files to aside/."""

    reason: str


Step = (
    WriteInfo
    | WriteRecips
    | Sync
    | SyncLater
    | RemoveTodo
    | AppendBounce
    | MarkDone
    | SetDue
    | UnlinkRecips
    | SendBounce
    | UnlinkBounce
    | Say
    | UnlinkInfo
    | RemoveMess
    | SetAside
)


class Purpose(Enum):
    """What a plan is for; it says what the manager does when it is complete."""

    PREPROCESS = auto()
    """From todo to info, local and remote; a retry starts from the beginning."""
    SETTLE = auto()
    """Results of deliveries; a retry goes on from the last step known durable."""
    END = auto()
    """The last plan of a message."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps for one message; plans of one message run one after another."""

    messid: MessId
    purpose: Purpose
    steps: tuple[Step, ...]
