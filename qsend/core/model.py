"""The words of qsend as types: messid, channel, letter, account, user.

Must not do: anything but hold values. Sources: qmail-send(8), qmail-users(5).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NewType

MessId = NewType("MessId", int)
"""Number of a queued message: the inode number of its `mess/` file."""

DelId = NewType("DelId", int)
"""Serial of one delivery, from 1 in each run of send."""

SPLIT = 23
"""Number of subdirectories of mess, info, local and remote (qmail conf-split)."""

INSTRUCTIONS_MAX = 32768
"""Longest text made of alias rows, in bytes: with every other field of a delivery
it fits into one frame between two processes. Some 800 addresses."""


class Channel(Enum):
    """Which kind of delivery a recipient needs; the value is its directory."""

    LOCAL = "local"
    REMOTE = "remote"

    # Enum hashes a member's name in Python; members are single, so identity serves.
    __hash__ = object.__hash__


class Letter(Enum):
    """What became of one delivery, as the byte that reports carry."""

    SUCCESS = b"K"
    DEFERRAL = b"Z"
    FAILURE = b"D"


class Cause(IntEnum):
    """Why a delivery ended as it did, where the schedule needs to know."""

    NORMAL = 0
    """The message, the recipient or the peer's answer decided."""
    UNREACHABLE = 1
    """No host of the destination could be connected: the destination is ill."""
    CRASHED = 2
    """The delivery child died: its messages are suspects."""
    CHILD_LOST = 3
    """The recipient's own local child died: the next attempt is made alone. It may
    have been killed by that user's programs, so it says nothing of the message,
    in which other recipients have a share."""
    MANGLED = 4
    """A classic spawner's report has no known letter: nothing is known."""
    UNRESOLVED = 5
    """It could not be found out whose mail it is: tried again when it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIdentity:
    """What tells one `mess/N` file from a later one with the same number.

    `mtime_ns` and `size` are those of the finished file, as stat gives them.
    """

    mtime_ns: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A uid and a gid that a process or a delivery runs with."""

    uid: int
    gid: int


class Ownership(IntEnum):
    """What a delivery must find of the home before it uses it."""

    TRUSTED = 0
    """Nothing: users/cdb entries are used as written."""
    UID = 1
    """The uid owns it (accounts of the machine)."""
    UID_GID = 2
    """uid and gid are those of the home (mailbox table)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who owns a local part: the six fields of users/cdb, and how far to trust.

    `home` is an absolute path. `dash` and `ext` choose the dot-qmail file, unless
    there are `instructions`: the text of a dot-qmail file made of alias rows, at
    most INSTRUCTIONS_MAX bytes, which decides instead of any file.
    """

    name: bytes
    uid: int
    gid: int
    home: bytes
    dash: bytes
    ext: bytes
    ownership: Ownership
    instructions: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The accounts qsend's processes run as, one per role of qmail."""

    alias: Account
    qmaild: Account
    qmaill: Account
    qmailp: Account
    qmailq: Account
    qmailr: Account
    qmails: Account
    root: Account
    """lspawn and start: uid 0 with gid qmail; the same user in single-user mode."""
