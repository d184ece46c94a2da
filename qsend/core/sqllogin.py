"""Logins and hosts by the database.

The mailbox table comes before accounts of the machine, the rcpthosts table before
control/rcpthosts: no row means that those decide.
Source: docs/VIRTUAL.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from qsend.core.errors import TempFail
from qsend.core.lookups import YesNo
from qsend.core.model import User
from qsend.core.relay import HOST_MAX, host_keys
from qsend.core.sqlrules import (
    Ask,
    Judged,
    Machine,
    Misconfigured,
    Notes,
    Part,
    Row,
    SqlOptions,
    mailbox_user,
    rows_by_part,
    shown,
    text,
)
from qsend.core.users import Candidate, Trouble


class PasswordType(Enum):
    """What the column `password` holds; the values are those of `password_type`."""

    PLAIN = "Password"
    CRYPT = "Crypt-Password"
    MYSQL = "MySQL-Password"


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxLogin:
    """A row of the mailbox table that somebody logs in to.

    `password` is as stored, None when none is set: then no password is right.
    A suspended user is refused whatever the password, and still gets mail.
    """

    user: User
    kind: PasswordType
    suspended: bool
    password: bytes | None = field(repr=False)


def ask_login(login: bytes) -> Ask:
    """The question for a login name, as the client sent it."""
    return Ask(parts=(Part(query="login", values={"username": login.lower()}),))


def judge_login(
    rows: Sequence[Row], login: bytes, options: SqlOptions, machine: Machine
) -> Judged[MailboxLogin | Trouble | None]:
    """The mailbox of a login, or None: accounts of the machine may have it."""
    notes = Notes()
    try:
        for row in rows_by_part(ask_login(login), rows)[0]:
            if login and text(row[0]).lower() == login.lower():
                return notes.judged(_mailbox(row, options, machine))
    except TempFail as exc:
        notes.trouble(exc)
        return notes.judged(Trouble(text=str(exc).encode()))
    notes.steps.append(f"no mailbox row {shown(login.lower())}")
    return notes.judged(None)


def _mailbox(row: Row, options: SqlOptions, machine: Machine) -> MailboxLogin:
    candidate = Candidate(name=text(row[0]).lower(), dash=b"", ext=b"")
    user = mailbox_user(row, candidate, options, machine)
    where = f"mailbox row {shown(user.name)}"
    return MailboxLogin(
        user=user,
        kind=_kind(text(row[5]), where),
        suspended=_is_suspended(text(row[6]), where),
        password=text(row[4]) or None,
    )


def _kind(cell: bytes, where: str) -> PasswordType:
    for kind in PasswordType:
        if kind.value.encode().lower() == cell.lower():
            return kind
    raise Misconfigured(f"{where}: password_type {shown(cell)}")


def _is_suspended(cell: bytes, where: str) -> bool:
    match cell.upper():
        case b"Y":
            return True
        case b"N" | b"":
            return False
        case _:
            # Guessing here could let in somebody whom the operator locked out.
            raise Misconfigured(f"{where}: suspended {shown(cell)}, not Y or N")


def ask_rcpthost(host: bytes) -> Ask:
    """The question whether mail for `host` is taken; no parts when it cannot be.

    A row `.example.com` stands for every host below, as in control/rcpthosts.
    """
    return Ask(
        parts=tuple(
            Part(query="rcpthost", values={"host": key}) for key in _host_keys(host)
        )
    )


def judge_rcpthost(rows: Sequence[Row], host: bytes) -> Judged[YesNo]:
    """Whether the table has the host; False means that control/rcpthosts decides."""
    notes = Notes()
    try:
        found = rows_by_part(ask_rcpthost(host), rows)
    except TempFail as exc:
        notes.trouble(exc)
        return notes.judged(Trouble(text=str(exc).encode()))
    for key, matching in zip(_host_keys(host), found, strict=True):
        if any(text(row[0]).lower() == key for row in matching):
            notes.steps.append(f"rcpthosts has {shown(key)}")
            return notes.judged(True)
    notes.steps.append(f"rcpthosts has no row for {shown(host.lower())}")
    return notes.judged(False)


def _host_keys(host: bytes) -> list[bytes]:
    """Nothing for what is no name."""
    return host_keys(host) if 0 < len(host) <= HOST_MAX else []
