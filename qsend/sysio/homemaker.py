"""Making qsend's home around the queue: directories, first controls, aliases.

Whatever exists stays; only owners and modes of the directories are mended.
Source: qmail hier.c; hier.c; docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from qsend.core.errors import Fatal
from qsend.core.model import Account, Accounts
from qsend.sysio import spool

ALIASES = ("root", "postmaster", "mailer-daemon")
"""The names that every mail system answers to."""

_MAN = ("man/man1", "man/man5", "man/man7", "man/man8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """One directory of the home; `path` is relative, "" for the home itself."""

    path: str
    mode: int
    owner: Account


def directories(accounts: Accounts) -> tuple[Directory, ...]:
    """The directories of a home, parents first; the queue is queuemaker's."""
    gid = accounts.qmailq.gid
    root = Account(uid=accounts.root.uid, gid=gid)
    return (
        *(
            Directory(path=path, mode=0o755, owner=root)
            for path in ("", "control", "users", "run", "bin", "man", *_MAN)
        ),
        Directory(
            path="alias", mode=0o2755, owner=Account(uid=accounts.alias.uid, gid=gid)
        ),
        # What send keeps between runs that is no part of the queue.
        Directory(
            path="run/send", mode=0o700, owner=Account(uid=accounts.qmails.uid, gid=gid)
        ),
        # Messages, without names, while mail filters look at them.
        Directory(
            path=spool.DIRECTORY,
            mode=0o700,
            owner=Account(uid=accounts.qmaild.uid, gid=gid),
        ),
    )


def make_directories(home: str, accounts: Accounts) -> None:
    """Make or mend the directories.

    Raises: Fatal, naming the one that cannot be made or is something else.
    """
    for directory in directories(accounts):
        path = os.path.join(home, directory.path) if directory.path else home
        try:
            if not directory.path:
                os.makedirs(os.path.dirname(path), exist_ok=True)
            _make(path, directory)
        except OSError as exc:
            raise Fatal(f"unable to make {path}: {exc.strerror}") from exc


def _make(path: str, directory: Directory) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    follow = 0 if _may_be_a_link(path, directory) else os.O_NOFOLLOW
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | follow)
    try:
        found, owner = os.fstat(fd), directory.owner
        if (found.st_uid, found.st_gid) != (owner.uid, owner.gid):
            os.fchown(fd, owner.uid, owner.gid)
        if stat.S_IMODE(os.fstat(fd).st_mode) != directory.mode:
            os.fchmod(fd, directory.mode)
    finally:
        os.close(fd)


def _may_be_a_link(path: str, directory: Directory) -> bool:
    """Whether a link there is followed.

    The home may be one, to where the disk is; and alias, because qmail looks where
    passwd says that the account lives. That link must be the caller's own: who owns
    the directory behind it has made none of our names. Nothing else may be.
    """
    if directory.path == "alias":
        return os.lstat(path).st_uid == os.geteuid()
    return not directory.path


def make_files(
    directory: str, files: Mapping[str, bytes], owner: Account
) -> tuple[list[str], list[str]]:
    """Create files that are missing, readable by all.

    Returns: the names made, and those that were there before.
    Raises: Fatal, naming the file that cannot be made.
    """
    made, kept = [], []
    for name, content in files.items():
        try:
            if _create(os.path.join(directory, name), content, owner):
                made.append(name)
            else:
                kept.append(name)
        except OSError as exc:
            raise Fatal(f"unable to make {directory}/{name}: {exc.strerror}") from exc
    return made, kept


def _create(path: str, content: bytes, owner: Account) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        if os.geteuid() == 0:
            os.fchown(fd, owner.uid, owner.gid)
        os.fchmod(fd, 0o644)
    return True


def alias_files(home: str) -> dict[str, bytes]:
    """Empty ones: mail goes to the alias directory by the default delivery.

    None beside a .qmail-default, which would no longer be asked for these names.
    """
    if os.path.lexists(f"{home}/alias/.qmail-default"):
        return {}
    return {f".qmail-{name}": b"" for name in ALIASES}
