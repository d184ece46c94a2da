"""The way to a home: each directory of it, and whether an account can pass.

Source: path_resolution(7).
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from qsend.core.model import Account
from qsend.sysio.askchild import ask_as


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One directory on the way. `link` is where it points to if it is a link.

    `mode` is as `ls -l` shows it, `owner` as `name:group`; both are blank where we
    cannot look. `problem` is why the account does not get through, or None; it is
    also None where that could not be tried.
    """

    path: str
    mode: str
    owner: str
    link: str | None
    problem: str | None

    @property
    def mending(self) -> str:
        """What an operator can do about the problem."""
        if not self.mode:
            return f"make {self.path}, or mend the home in the row or file above"
        if self.mode[0] != "d":
            return f"{self.path} must be a directory"
        return f"`chmod o+x {self.path}` lets everybody pass, and list nothing"


def walk(path: str, account: Account) -> tuple[Stop, ...]:
    """Every directory from the root to `path` (absolute), as `account` meets it.

    Who is neither root nor the account sees no problems.
    Raises: TempFail when the account cannot be asked.
    """
    parts = [part for part in path.split("/") if part]
    paths = ["/", *(f"/{'/'.join(parts[: n + 1])}" for n in range(len(parts)))]
    problems: Sequence[str | None] = [None] * len(paths)
    if os.getuid() in (0, account.uid):
        problems = ask_as(account, lambda: [_try(each) for each in paths])
    return tuple(
        _stop(each, problem) for each, problem in zip(paths, problems, strict=True)
    )


def _try(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        return exc.strerror
    try:
        os.stat(".", dir_fd=fd)  # its own entry is reached by passing it
    except OSError as exc:
        return exc.strerror
    finally:
        os.close(fd)
    return None


def _stop(path: str, problem: str | None) -> Stop:
    link = os.readlink(path) if os.path.islink(path) else None
    try:
        found = os.stat(path)
    except OSError as exc:
        return Stop(
            path=path, mode="", owner="", link=link, problem=problem or exc.strerror
        )
    return Stop(
        path=path,
        mode=stat.filemode(found.st_mode),
        owner=owner_text(found.st_uid, found.st_gid),
        link=link,
        problem=problem,
    )


def owner_text(uid: int, gid: int) -> str:
    """`name:group`, or the numbers where there are no names."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return f"{user}:{group}"
