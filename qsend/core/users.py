"""Whose mail it is: what a local part may mean, in the order it is tried.

users/cdb comes first (formats/usersdb.py has its keys), then accounts of the
machine at each break, longest name first, then the alias account.
Source: qmail-users(5), qmail-getpw(8), qmail-getpw.c, qmail-lspawn.c spawn().
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qsend.core.model import Account, Accounts, Ownership, User

BREAK = b"-"
"""Ends the account's name inside a local part (qmail conf-break)."""

NAME_MAX = 255
"""Longest account name looked up, in bytes: LOGIN_NAME_MAX of Linux less its NUL.
qmail stops at 31; longer names exist in directories of today."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An account name that a local part may mean.

    `name` is lower case and not empty; `dash` is b"" or b"-"; `ext` keeps the case
    it was written in.
    """

    name: bytes
    dash: bytes
    ext: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoUser:
    """Nobody takes the local part, not even alias; `text` says why."""

    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """It could not be found out now; `text` says why. The mail waits."""

    text: bytes


Outcome = User | NoUser | Trouble
"""The answer to "whose is this local part?"."""

ALIAS = b"alias"
"""The account that takes what nobody else has."""


def passwd_candidates(local: bytes) -> Iterator[Candidate]:
    """The account names that `local` may mean, longest first.

    `Joe-Lists-x` gives `joe-lists-x`, `joe-lists` (ext `x`), `joe` (ext
    `Lists-x`). Names of more than NAME_MAX bytes are passed over, and so are
    empty ones and those with a NUL, which no C interface can ask for.
    """
    at = len(local)
    while at > 0:
        name = local[:at]
        if at <= NAME_MAX and b"\0" not in name:
            dash = BREAK if at < len(local) else b""
            yield Candidate(name=name.lower(), dash=dash, ext=local[at + 1 :])
        at = local.rfind(BREAK, 0, at)


def passwd_user(
    candidate: Candidate, *, name: bytes, account: Account, home: bytes
) -> User:
    """The user that an accepted candidate stands for; it must own its home."""
    return User(
        name=name,
        uid=account.uid,
        gid=account.gid,
        home=home,
        dash=candidate.dash,
        ext=candidate.ext,
        ownership=Ownership.UID,
    )


def alias_user(local: bytes, account: Account, home: bytes) -> User:
    """The alias account, which takes every local part nobody else has.

    `home` is the alias directory; the whole local part becomes the extension.
    """
    return User(
        name=ALIAS,
        uid=account.uid,
        gid=account.gid,
        home=home,
        dash=BREAK,
        ext=local,
        ownership=Ownership.TRUSTED,
    )


def is_fallback(user: User, local: bytes) -> bool:
    """Whether `user` is who takes `local` because nobody else has it."""
    return user.name == ALIAS and user.ext == local and user.dash == BREAK


def refusal(uid: int, accounts: Accounts, *, single_user: bool) -> str | None:
    """Why no mail may be delivered as `uid`, or None when it may.

    Root never receives mail. qsend's own accounts do not either, except alias: a
    program run as one of them could reach the queue or its siblings. In
    single-user mode nobody but that user can be served.
    """
    if uid == 0:
        return "deliveries as root are refused"
    if single_user:
        alone = accounts.alias.uid
        return None if uid == alone else f"only uid {alone} is served here"
    for role in ("qmaild", "qmaill", "qmailp", "qmailq", "qmailr", "qmails"):
        account: Account = getattr(accounts, role)
        if account.uid == uid and uid != accounts.alias.uid:
            return f"deliveries as {role} are refused"
    return None
