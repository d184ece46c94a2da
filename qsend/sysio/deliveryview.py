"""What a delivery to a user would do, looked at as that user; nothing is done.

Source: dot-qmail(5); sysio/localdelivery.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from qsend.core import dotqmail
from qsend.core.dotqmail import (
    Forward,
    Instruction,
    Maildir,
    Mbox,
    Owner,
    Program,
    Refusal,
)
from qsend.core.errors import PermFail, TempFail
from qsend.core.model import Account, User
from qsend.sysio import dotqmailfile
from qsend.sysio.askchild import ask_as
from qsend.sysio.localdelivery import choose, instructions


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One instruction; `problem` is why it could not be carried out now, or ""."""

    does: str
    what: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a delivery would meet.

    `tried` are the names of dot-qmail files in the order they are looked for, `file`
    the one that decides ("" if none does). `failure` and `deferral` are what the
    report would say, "" when it would succeed.
    """

    tried: tuple[str, ...]
    file: str = ""
    lines: tuple[Line, ...] = ()
    owner: str = ""
    failure: str = ""
    deferral: str = ""


def look(user: User, patrn: int, default_delivery: bytes) -> View:
    """The delivery as the user meets it.

    Raises: PermFail when this process may not become the user, TempFail when no
        child can be had.
    """
    told = ask_as(user_account(user), lambda: _look(user, patrn, default_delivery))
    lines = tuple(Line(**line) for line in told.pop("lines"))
    return View(**{**told, "tried": tuple(told["tried"]), "lines": lines})


def user_account(user: User) -> Account:
    """uid and gid that the delivery runs with."""
    return Account(uid=user.uid, gid=user.gid)


def _look(user: User, patrn: int, default_delivery: bytes) -> dict[str, object]:
    """As the user: the fields of View."""
    told: dict[str, object] = {"tried": _tried(user), "lines": []}
    try:
        home_fd = dotqmailfile.open_home(user, patrn)
    except TempFail as exc:
        return {**told, "deferral": str(exc)}
    try:
        chosen = choose(home_fd, user, patrn)
        lines = [
            _line(home_fd, step) for step in instructions(chosen, default_delivery)
        ]
        owner = dotqmailfile.find_owner(home_fd, user.dash, user.ext)
    except PermFail as exc:
        return {**told, "failure": str(exc)}
    except TempFail as exc:
        return {**told, "deferral": str(exc)}
    finally:
        os.close(home_fd)
    troubles = [line["problem"] for line in lines if line["problem"]]
    return {
        **told,
        "file": _text(chosen.name),
        "lines": lines,
        "owner": "" if owner is Owner.NONE else owner.value,
        "deferral": troubles[0] if troubles else "",
    }


def _tried(user: User) -> list[str]:
    if user.instructions is not None:
        return []
    names: Iterator[bytes] = (
        each.name for each in dotqmail.candidates(user.dash, user.ext)
    )
    return list(dict.fromkeys(map(_text, names)))


def _line(home_fd: int, step: Instruction) -> dict[str, str]:
    match step:
        case Maildir(path):
            does, what, problem = "maildir", path, _maildir_problem(home_fd, path)
        case Mbox(path):
            does, what, problem = "mbox", path, _mbox_problem(home_fd, path)
        case Forward(address):
            does, what, problem = "forward", address, ""
        case Program(command):
            does, what, problem = "program", command, ""
        case Refusal(reason):
            does, what, problem = "refuse", b"", reason
        case _:
            assert_never(step)
    return {"does": does, "what": _text(what), "problem": problem}


def _maildir_problem(home_fd: int, path: bytes) -> str:
    for below in (b"", b"tmp", b"new"):
        each = os.path.join(path, below)
        if not os.path.isdir(_at(home_fd, each)):
            return f"there is no directory {_text(each)}"
        if not os.access(each, os.W_OK | os.X_OK, dir_fd=home_fd) and below:
            return f"no permission to write in {_text(each)}"
    return ""


def _mbox_problem(home_fd: int, path: bytes) -> str:
    if os.path.isdir(_at(home_fd, path)):
        return f"{_text(path)} is a directory; with / at its end it is a Maildir"
    writable = path if os.path.lexists(_at(home_fd, path)) else os.path.dirname(path)
    if os.access(writable or b".", os.W_OK, dir_fd=home_fd):
        return ""
    return f"no permission to write {_text(path)}"


def _at(home_fd: int, path: bytes) -> bytes:
    return os.path.join(b"/proc/self/fd/%d" % home_fd, path)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
