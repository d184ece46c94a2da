"""Alias rows as the text of a dot-qmail file.

For a user with an extension the exact rows decide, else the rows whose alias is
`@`, else those whose alias is blank; for the bare user the blank ones.
Source: docs/VIRTUAL.md, dot-qmail(5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qsend.core.errors import TempFail
from qsend.core.model import INSTRUCTIONS_MAX, User
from qsend.core.sqlrules import (
    CATCH_ALL_EXT,
    Ask,
    Judged,
    Misconfigured,
    Notes,
    Part,
    Row,
    SqlOptions,
    is_line,
    rows_by_part,
    shown,
    text,
)
from qsend.core.users import Outcome, Trouble

_DELIVERIES = (b"|", b".", b"/")
"""What stands alone in alias_username for a program, a file or a directory."""


def alias_part(name: bytes, ext: bytes) -> Part:
    """The part that fetches every row that may decide for a user and extension."""
    values = {"username": name.lower(), "alias": ext.lower()}
    return Part(query="alias", values=values)


def ask_instructions(user: User) -> Ask:
    """The question for a user that users/cdb gave."""
    return Ask(parts=(alias_part(user.name, user.ext),))


def judge_instructions(
    rows: Sequence[Row], user: User, options: SqlOptions
) -> Judged[Outcome]:
    """The user with the instructions that the rows of `ask_instructions` make."""
    notes = Notes()
    try:
        found = rows_by_part(ask_instructions(user), rows)
        return notes.judged(instructed(user, found[0], options, notes))
    except TempFail as exc:
        notes.trouble(exc)
        return notes.judged(Trouble(text=str(exc).encode()))


def instructed(
    user: User, rows: Sequence[Row], options: SqlOptions, notes: Notes
) -> User:
    """`user` with instructions, or as it is when no row decides.

    Raises: Misconfigured for a row that cannot be meant; TempFail for too many.
    """
    alias, chosen = _chosen(rows, user.ext, options)
    key = f"alias rows ({shown(user.name)}, {shown(alias)})"
    if not chosen:
        notes.steps.append(f"alias has no rows for {shown(user.name)}, {shown(alias)}")
        return user
    lines = sorted({instruction_line(row, key) for row in chosen}, key=_order)
    content = b"".join(line + b"\n" for line in lines)
    if len(content) > INSTRUCTIONS_MAX:
        raise TempFail(f"{key}: a list of more than {INSTRUCTIONS_MAX} bytes")
    notes.steps.append(f"{key} decide: {len(lines)} instructions")
    return replace(user, instructions=content)


def _chosen(
    rows: Sequence[Row], ext: bytes, options: SqlOptions
) -> tuple[bytes, list[Row]]:
    """The alias that decides, and its rows; the extension itself when none does."""
    wanted = [ext.lower()]
    if ext:
        wanted.append(CATCH_ALL_EXT)
        if options.blank_catchall:
            wanted.append(b"")
    for alias in wanted:
        matching = [row for row in rows if text(row[0]).lower() == alias]
        if matching:
            return alias, matching
    return ext.lower(), []


def instruction_line(row: Row, key: str) -> bytes:
    """The instruction of a row; `key` names it. Raises: Misconfigured."""
    username, host = text(row[1]), text(row[2])
    if not username.strip():
        raise Misconfigured(f"{key}: blank alias_username")
    if not is_line(username + host):
        raise Misconfigured(f"{key}: a line end in {shown(username)}")
    if username in _DELIVERIES:
        if not host.strip():
            raise Misconfigured(f"{key}: {shown(username)} with a blank alias_host")
        return username + host
    if username.startswith(_DELIVERIES):
        first = shown(username[:1])
        raise Misconfigured(
            f"{key}: {shown(username)}: only {first} belongs into alias_username,"
            " the rest into alias_host"
        )
    address = username.removeprefix(b"&")
    if not address:
        raise Misconfigured(f"{key}: no address after '&'")
    return b"&" + address + (b"@" + host if host else b"")


def _order(line: bytes) -> tuple[int, bytes]:
    # Programs come first: one that fails or says "done" (99) does so before
    # anything is delivered, so that a retry delivers nothing twice.
    rank = {b"|": 0, b".": 1, b"/": 1}.get(line[:1], 2)
    return rank, line
