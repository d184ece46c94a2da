"""Opening the user's home and choosing the dot-qmail file in it.

Everything is opened relative to the descriptor of the home. Symbolic links are
followed, as users expect: the process has the user's own rights and no more.
Source: qmail-local.c (main, checkhome, qmeopen, qmeexists), dot-qmail(5).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from qsend.core import dotqmail
from qsend.core.dotqmail import Candidate, Owner
from qsend.core.errors import PermFail, TempFail
from qsend.core.model import Ownership, User

DOTQMAIL_MAX = 16 << 20
"""Longest dot-qmail file read: a list of some 500,000 addresses."""

_ABSENT = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENXIO,
        errno.ENODEV,
    }
)
"""Errors that say "no such regular file"; any other one is temporary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The dot-qmail file that decides.

    `content` is b"" for an empty file, or for none where none is needed; the
    default delivery applies then. `default` is the value of $DEFAULT, `name` that
    of the file, b"" without one.
    """

    content: bytes
    default: bytes | None
    forward_only: bool
    name: bytes = field(default=b"", compare=False)


def open_home(user: User, patrn: int, warn: Callable[[str], None] | None = None) -> int:
    """A descriptor of the home for use with *at calls; the caller closes it.

    Args:
        user: its `ownership` says whom the home must belong to.
        patrn: mode bits that must not be set (control/patrn).
        warn: told of a sticky home instead of refusing it (`-n` only).
    Raises: TempFail when it cannot be entered, is not the user's, is writable by
        others, or is sticky (the user is editing).
    """
    try:
        fd = os.open(user.home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        home = os.fsdecode(user.home)
        raise TempFail(f"Unable to switch to {home}: {exc.strerror}. (#4.3.0)") from exc
    try:
        # By name, not fstat: this also proves that the home may be entered.
        _check_home(os.stat(b".", dir_fd=fd), user, patrn, warn)
    except OSError as exc:
        os.close(fd)
        raise TempFail(
            f"Unable to stat home directory: {exc.strerror}. (#4.3.0)"
        ) from exc
    except TempFail:
        os.close(fd)
        raise
    return fd


def _check_home(
    status: os.stat_result,
    user: User,
    patrn: int,
    warn: Callable[[str], None] | None,
) -> None:
    if not _is_owned(status, user):
        raise TempFail("The home directory belongs to another user. (#4.3.0)")
    if status.st_mode & patrn:
        raise TempFail("Uh-oh: home directory is writable. (#4.7.0)")
    if status.st_mode & stat.S_ISVTX:
        if warn is None:
            raise TempFail(_STICKY)
        warn("Warning: home directory is sticky.")


def _is_owned(status: os.stat_result, user: User) -> bool:
    match user.ownership:
        case Ownership.TRUSTED:
            return True
        case Ownership.UID:
            return status.st_uid == user.uid
        case Ownership.UID_GID:
            return (status.st_uid, status.st_gid) == (user.uid, user.gid)
        case _:
            assert_never(user.ownership)


_STICKY = "Home directory is sticky: user is editing his .qmail file. (#4.2.1)"


def choose(home_fd: int, dash: bytes, ext: bytes, patrn: int) -> Chosen:
    """The first dot-qmail file that exists, checked and read.

    Raises:
        PermFail: there is none, and the address has an extension (no mailbox).
        TempFail: one that exists cannot be read, is writable by others, or is
            longer than DOTQMAIL_MAX.
    """
    for candidate in dotqmail.candidates(dash, ext):
        chosen = _try(home_fd, candidate, patrn)
        if chosen is not None:
            return chosen
    if dash:
        raise PermFail("Sorry, no mailbox here by that name. (#5.1.1)")
    return Chosen(content=b"", default=None, forward_only=False)


def _try(home_fd: int, candidate: Candidate, patrn: int) -> Chosen | None:
    try:
        fd = os.open(
            candidate.name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=home_fd
        )
    except OSError as exc:
        if exc.errno in _ABSENT:
            return None
        raise _unreadable(candidate.name, exc) from exc
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_mode & patrn:
            raise TempFail("Uh-oh: .qmail file is writable. (#4.7.0)")
        return Chosen(
            content=_read(fd, candidate.name),
            default=candidate.default,
            forward_only=bool(status.st_mode & stat.S_IXUSR),
            name=candidate.name,
        )
    except OSError as exc:
        raise _unreadable(candidate.name, exc) from exc
    finally:
        os.close(fd)


def _read(fd: int, name: bytes) -> bytes:
    content = b""
    while part := os.read(fd, 65536):
        content += part
        if len(content) > DOTQMAIL_MAX:
            raise TempFail(f"{os.fsdecode(name)} is too long. (#4.3.0)")
    return content


def _unreadable(name: bytes, exc: OSError) -> TempFail:
    return TempFail(f"Unable to open {os.fsdecode(name)}: {exc.strerror}. (#4.3.0)")


def find_owner(home_fd: int, dash: bytes, ext: bytes) -> Owner:
    """Which owner files stand beside the file of the full extension.

    Raises: TempFail when that cannot be told.
    """
    base = dotqmail.base_name(dash, ext)
    if not _exists(home_fd, base + b"-owner"):
        return Owner.NONE
    if not _exists(home_fd, base + b"-owner-default"):
        return Owner.PLAIN
    return Owner.VERP


def _exists(home_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=home_fd)
    except OSError as exc:
        if exc.errno in _ABSENT:
            return False
        raise _unreadable(name, exc) from exc
    return True
