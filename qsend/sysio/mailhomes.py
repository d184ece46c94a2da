"""Homes of virtual users: made with the right owner and mode, removed with care.

What lies in a directory that another account may change could be anything by the
time we look: there, and below every home, the account itself acts, never root.
Source: docs/VIRTUAL.md; maildir(5).
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Iterable

from qsend.core.errors import PermFail, TempFail
from qsend.core.model import Account
from qsend.sysio.askchild import ask_as
from qsend.sysio.pathwalk import owner_text, walk

MAILDIR = "Maildir"
_BELOW = ("tmp", "new", "cur")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_home(home: str, account: Account) -> list[str]:
    """Make `home` and a Maildir in it, mode 0700; what was made, in order.

    The directory above must be there. A home that exists must be the account's.
    Raises: PermFail with what to do, when it may not or cannot be made; TempFail.
    """
    made = [home] if _make_top(home, account) else []
    for stop in walk(home, account):
        if stop.problem is not None:
            raise PermFail(
                f"uid {account.uid} does not get to {home}: {stop.path}:"
                f" {stop.problem}; {stop.mending}"
            )
    below: list[str] = ask_as(account, lambda: _make_maildir(home))
    return made + below


def _make_top(home: str, account: Account) -> bool:
    """Whether it was made, and not there already."""
    if os.path.lexists(home):
        _check_owner(home, account)
        return False
    above, name = os.path.split(home)
    try:
        above_fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise PermFail(
            f"{above}: {exc.strerror}; make it first, so that the account can pass:"
            f" install -d -o {account.uid} -g {account.gid} -m 711 {above}"
        ) from exc
    try:
        if _is_roots(above_fd):
            _make_as_root(above_fd, name, account)
        else:
            _require_own(above, above_fd, account)
            ask_as(account, lambda: _mkdir(home))
    except OSError as exc:
        raise PermFail(f"{home}: {exc.strerror}") from exc
    finally:
        os.close(above_fd)
    _check_owner(home, account)
    return True


def _is_roots(above_fd: int) -> bool:
    """Whether we are root, and nobody else can change names in the directory."""
    found = os.fstat(above_fd)
    return os.getuid() == 0 == found.st_uid and not found.st_mode & 0o022


def _require_own(above: str, above_fd: int, account: Account) -> None:
    found = os.fstat(above_fd)
    if found.st_uid != account.uid:
        raise PermFail(
            f"{above} belongs to {owner_text(found.st_uid, found.st_gid)}, or others"
            f" may write to it: it must be root's alone, or uid {account.uid}'s"
        )


def _make_as_root(above_fd: int, name: str, account: Account) -> None:
    os.mkdir(name, 0o700, dir_fd=above_fd)
    fd = os.open(name, _DIRECTORY, dir_fd=above_fd)
    try:
        os.fchown(fd, account.uid, account.gid)
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def _mkdir(path: str) -> None:
    os.mkdir(path, 0o700)
    # A directory with its setgid bit set gives its own group to what is made in it.
    os.chown(path, -1, os.getgid(), follow_symlinks=False)
    os.chmod(path, 0o700)


def _make_maildir(home: str) -> list[str]:
    """As the account: what was made."""
    made = []
    for path in (MAILDIR, *(f"{MAILDIR}/{name}" for name in _BELOW)):
        try:
            _mkdir(f"{home}/{path}")
        except FileExistsError:
            if not os.path.isdir(f"{home}/{path}"):
                raise
        else:
            made.append(f"{home}/{path}")
    return made


def _check_owner(home: str, account: Account) -> None:
    """Raises: PermFail unless it is a directory of exactly that uid and gid."""
    try:
        found = os.lstat(home)
    except OSError as exc:
        raise PermFail(f"{home}: {exc.strerror}") from exc
    if stat.S_ISLNK(found.st_mode):
        raise PermFail(f"{home} is a symbolic link; give the path that it points to")
    if not stat.S_ISDIR(found.st_mode):
        raise PermFail(f"{home} is no directory")
    if (found.st_uid, found.st_gid) != (account.uid, account.gid):
        raise PermFail(
            f"{home} belongs to {owner_text(found.st_uid, found.st_gid)}, and not to"
            f" {account.uid}:{account.gid}"
        )


def delete_home(home: str, account: Account, others: Iterable[str]) -> None:
    """Remove a home and all in it, as its account.

    Args:
        home: absolute, as the row had it.
        others: homes of other users, which must not lie in it.
    Raises: PermFail when it is a link, another's, or holds more than one home;
        TempFail when something could not be removed.
    """
    _check_owner(home, account)
    if os.path.realpath(home) != home:
        raise PermFail(f"{home} is reached over a symbolic link; remove it by hand")
    if os.path.ismount(home):
        raise PermFail(f"{home} is a file system of its own; remove it by hand")
    machine = (entry.pw_dir for entry in pwd.getpwall())
    for other in (*others, *machine):
        if f"{other.rstrip('/')}/".startswith(f"{home}/"):
            raise PermFail(f"{home} holds the home {other} of another user")
    left: list[str] = ask_as(account, lambda: _clear(home))
    if left:
        raise TempFail(f"not all of {home} could be removed: {left[0]}")
    above, name = os.path.split(home)
    above_fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.rmdir(name, dir_fd=above_fd)  # does nothing to what is not empty
    except OSError as exc:
        raise TempFail(f"{home} is empty now, but: {exc.strerror}") from exc
    finally:
        os.close(above_fd)


def _clear(home: str) -> list[str]:
    """As the account: empty the home; what is in the way."""
    left: list[str] = []

    def note(
        _function: object, path: str, info: tuple[object, OSError, object]
    ) -> None:
        left.append(f"{path}: {info[1].strerror}")

    fd = os.open(home, _DIRECTORY)
    try:
        for name in os.listdir(fd):
            if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                shutil.rmtree(name, onerror=note, dir_fd=fd)  # type: ignore[arg-type] # see above
            else:
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)
    return left
