"""What a mail server and its filters (milters) say to each other, as values.

Source: libmilter's mfdef.h and mfapi.h; Postfix's milter8.c for what they leave open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, Flag, auto


class Stage(Enum):
    """What a filter is told of; the value is the command's letter."""

    CONNECT = b"C"
    HELO = b"H"
    MAIL = b"M"
    RCPT = b"R"
    DATA = b"T"
    HEADER = b"L"
    END_OF_HEADER = b"N"
    BODY = b"B"
    END = b"E"
    ABORT = b"A"
    """The message is forgotten; there is no answer."""
    QUIT = b"Q"
    """So is the connection."""
    NEXT = b"K"
    """Another client's comes (version 6)."""


class Actions(Flag):
    """What a filter may do to a message (SMFIF_*)."""

    ADD_FIELDS = 0x1
    NEW_BODY = 0x2
    ADD_RECIPIENTS = 0x4
    REMOVE_RECIPIENTS = 0x8
    CHANGE_FIELDS = 0x10
    QUARANTINE = 0x20
    NEW_SENDER = 0x40
    ADD_RECIPIENTS_WITH = 0x80
    """With parameters."""
    CHOOSE_MACROS = 0x100


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was agreed upon with a filter.

    Of `omitted` stages it is not told; to `silent` ones it does not answer.
    `macros` are those it wants at a stage, where it said so. `keeps_space`: values
    of fields come and go with the blank behind the colon.
    """

    version: int
    actions: Actions
    omitted: frozenset[Stage] = frozenset()
    silent: frozenset[Stage] = frozenset()
    keeps_space: bool = False
    macros: Mapping[Stage, frozenset[bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The client of a CONNECT."""

    host: bytes
    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """One thing to tell a filter, and whether it answers.

    `words` have no NUL; those of BODY are its bytes. `macros` belong to the stage;
    `is_told` is False when it only gets them.
    """

    stage: Stage
    words: tuple[bytes, ...] = ()
    connection: Connection | None = None
    macros: Mapping[bytes, bytes] = field(default_factory=dict)
    is_told: bool = True
    has_answer: bool = True


class Answer(Enum):
    """Answers without more to them."""

    CONTINUE = auto()
    ACCEPT = auto()
    """Take it, and do not ask me any more."""
    REJECT = auto()
    TEMPFAIL = auto()
    DISCARD = auto()
    """Say that it is taken, and forget it."""
    SKIP = auto()
    """No more of this kind."""
    SHUTDOWN = auto()
    """Send the client away."""
    PROGRESS = auto()
    """I am still at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Refuse it with this reply, as it came."""

    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AddField:
    """A field behind all others."""

    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertField:
    """A field with `index` others in front."""

    index: int
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeField:
    """A new value for the `index`-th field of that name, from 1; b"" removes it."""

    index: int
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBody:
    """A piece of what is put in the place of the body; lines end in CR LF."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRecipient:
    """One more; `has_parameters`: it came with ESMTP parameters."""

    address: bytes
    has_parameters: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRecipient:
    """One less."""

    address: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSender:
    """Another envelope sender."""

    address: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Keep the message from its recipients."""

    reason: bytes


Edit = (
    AddField
    | InsertField
    | ChangeField
    | NewBody
    | AddRecipient
    | RemoveRecipient
    | NewSender
    | Quarantine
)
"""What a filter may say at the end of a message, before its answer."""
Heard = Answer | Reply | Edit


def needed_action(edit: Edit) -> Actions:
    """What must have been agreed upon for an edit."""
    if isinstance(edit, AddRecipient):
        if edit.has_parameters:
            return Actions.ADD_RECIPIENTS_WITH
        return Actions.ADD_RECIPIENTS
    return _NEEDED[type(edit)]


_NEEDED: Mapping[type[Edit], Actions] = {
    AddField: Actions.ADD_FIELDS,
    InsertField: Actions.ADD_FIELDS,
    ChangeField: Actions.CHANGE_FIELDS,
    NewBody: Actions.NEW_BODY,
    RemoveRecipient: Actions.REMOVE_RECIPIENTS,
    NewSender: Actions.NEW_SENDER,
    Quarantine: Actions.QUARANTINE,
}
