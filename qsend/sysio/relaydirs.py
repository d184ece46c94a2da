"""Directories whose mail is pushed: a RELAYHOST file and a Maildir in each.

RELAYHOST is locked while a transfer runs, by flock, as setlock does: whoever finds
it locked leaves the directory alone. The lock is held by the transfer's process and
by its client, so it ends with them however they end.
Source: docs/SERIALMAIL.md.
"""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass

from qsend.core.errors import PermFail
from qsend.core.model import Account
from qsend.formats.relayhost import RELAYHOST_MAX, RelayHost, parse_relayhost

RELAYHOST = "RELAYHOST"
PREFIX = "PREFIX"
MAILDIR = "Maildir"

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A directory with mail, locked for us; `lock` is ours to close.

    `owner` is the Maildir's. `prefix` is what its Delivered-To lines begin with.
    """

    path: str
    lock: int
    relay: RelayHost
    prefix: bytes
    owner: Account


def names(base: str) -> list[str]:
    """The directories in `base`, in order. Raises: OSError."""
    with os.scandir(base) as found:
        return sorted(
            each.name
            for each in found
            if each.name[:1] != "." and each.is_dir(follow_symlinks=False)
        )


def claim(path: str) -> Claim | None:
    """Lock a directory that has mail to push.

    None where there is nothing to do: no RELAYHOST, a transfer under way, no mail.
    Raises: PermFail when the files are not what they must be, OSError otherwise.
    """
    directory = os.open(path, _OPEN_DIR)
    try:
        try:
            lock = _open_lock(directory)
        except FileNotFoundError:
            return None
        try:
            found = _claimed(path, directory, lock)
        except BaseException:
            os.close(lock)
            raise
        if found is None:
            os.close(lock)
        return found
    finally:
        os.close(directory)


def _open_lock(directory: int) -> int:
    """RELAYHOST; for writing where that is allowed, which NFS wants for a lock."""
    try:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(RELAYHOST, flags, dir_fd=directory)
    except (PermissionError, IsADirectoryError):
        return os.open(RELAYHOST, _OPEN_FILE, dir_fd=directory)


def _claimed(path: str, directory: int, lock: int) -> Claim | None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    owner = _owner(directory)
    if not _has_mail(directory):
        return None
    return Claim(
        path=path,
        lock=lock,
        relay=parse_relayhost(_content(lock, RELAYHOST, owner)),
        prefix=_prefix(path, directory, owner),
        owner=owner,
    )


def _owner(directory: int) -> Account:
    """Who owns the Maildir: whose mail it is."""
    try:
        found = os.stat(MAILDIR, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        raise PermFail("there is no Maildir") from None
    if not stat.S_ISDIR(found.st_mode):
        raise PermFail("Maildir is no directory")
    return Account(uid=found.st_uid, gid=found.st_gid)


def _has_mail(directory: int) -> bool:
    for name in ("new", "cur"):
        fd = os.open(f"{MAILDIR}/{name}", _OPEN_DIR, dir_fd=directory)
        try:
            with os.scandir(fd) as found:
                if any(each.name[:1] != "." for each in found):
                    return True
        finally:
            os.close(fd)
    return False


def _prefix(path: str, directory: int, owner: Account) -> bytes:
    """The first line of PREFIX; without that file the directory's name and `-`."""
    try:
        fd = os.open(PREFIX, _OPEN_FILE, dir_fd=directory)
    except FileNotFoundError:
        return os.fsencode(os.path.basename(path)) + b"-"
    try:
        return _content(fd, PREFIX, owner).split(b"\n", 1)[0].rstrip(b" \t\r")
    finally:
        os.close(fd)


def _content(fd: int, name: str, owner: Account) -> bytes:
    """What a file of ours says; a link to somebody else's secret is none of ours."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise PermFail(f"{name} is no file of its own")
    if found.st_uid not in (0, owner.uid, os.geteuid()):
        raise PermFail(f"{name} belongs neither to root nor to the Maildir's owner")
    return os.pread(fd, RELAYHOST_MAX, 0)
