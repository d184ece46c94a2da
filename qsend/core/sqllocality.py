"""Locality by the database: is a recipient local, and stored under which address.

The order for a domain in control/locals: mailbox (the whole local part), virtual
exact, virtual catch-all, accounts with their extensions, then the same two of
virtual with the domain replaced by control/envnoathost. For any other domain:
virtual exact, virtual catch-all. What the database leaves open `settle` decides
from control/virtualdomains.
Source: docs/VIRTUAL.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qsend.core.errors import TempFail
from qsend.core.lookups import Listing, Locality, Stored
from qsend.core.model import Channel
from qsend.core.rewrite import Rules, prepended, rewrite
from qsend.core.sqlrules import (
    CATCH_ALL_EXT,
    FORWARD,
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
from qsend.core.users import BREAK, Trouble, passwd_candidates

IsAccount = Callable[[bytes], bool]
"""Whether a local part is an account of the machine, or one with an extension
(users/cdb or passwd, at any break). May raise TempFail."""


def ask_locality(address: bytes, options: SqlOptions) -> Ask:
    """The question for an address, which has a domain and is after percenthack."""
    local, _, domain = address.rpartition(b"@")
    user, host = local.lower(), domain.lower()
    parts = [
        _virtual(user, host, options),
        Part(query="virtualhost", values={"host": host}),
    ]
    if host in options.locals:
        replaced = options.envnoathost.lower()
        parts.append(_virtual(user, replaced, options))
        names = [candidate.name for candidate in passwd_candidates(local)]
        parts += [Part(query="mailbox", values={"username": name}) for name in names]
    return Ask(parts=tuple(parts))


def judge_locality(
    rows: Sequence[Row], address: bytes, options: SqlOptions, is_account: IsAccount
) -> Judged[Locality]:
    """What the rows of `ask_locality` say of the address.

    `is_account` is asked at most once, and only when the answer depends on it.
    `settle` makes it final. Trouble stands for rows that cannot be meant,
    which `log` then tells, and for what `is_account` could not find out.
    """
    notes = Notes()
    try:
        answer = _judge(rows, address, options, is_account, notes)
    except TempFail as exc:
        notes.trouble(exc)
        return notes.judged(Trouble(text=str(exc).encode()))
    return notes.judged(answer)


def _judge(
    rows: Sequence[Row],
    address: bytes,
    options: SqlOptions,
    is_account: IsAccount,
    notes: Notes,
) -> Locality:
    local, _, domain = address.rpartition(b"@")
    found = rows_by_part(ask_locality(address, options), rows)
    if domain.lower() not in options.locals:
        stored = _match(found[0], local, domain, options, notes)
        if stored is not None:
            return Stored(address=stored)
        listed = any(text(row[0]).lower() == domain.lower() for row in found[1])
        return Listing.HOST if listed else Listing.NONE
    stored = _own(found, local, domain, options, is_account, notes)
    if stored is None:
        notes.steps.append(f"the domain becomes {shown(options.envnoathost)}")
        stored = _match(found[2], local, options.envnoathost, options, notes)
    return Listing.NONE if stored is None else Stored(address=stored)


def _own(
    found: list[list[Row]],
    local: bytes,
    domain: bytes,
    options: SqlOptions,
    is_account: IsAccount,
    notes: Notes,
) -> bytes | None:
    """The address that rows for a domain in locals give, before it is replaced."""
    written = local + b"@" + domain
    mailboxes = [
        shown(candidate.name)
        for candidate, rows in zip(passwd_candidates(local), found[3:], strict=True)
        if any(text(row[0]).lower() == candidate.name for row in rows)
    ]
    whole = shown(local.lower())
    if mailboxes[:1] == [whole]:
        notes.steps.append(f"mailbox has {whole}: local as it is")
        return written
    notes.steps.append(f"mailbox has no {whole}")
    stored = _match(found[0], local, domain, options, notes)
    if stored is not None:
        return stored
    if mailboxes:
        notes.steps.append(f"an extension of mailbox user {mailboxes[0]}: local")
        return written
    if is_account(local):
        notes.steps.append("an account of the machine or its extension: local")
        return written
    return None


def _virtual(user: bytes, host: bytes, options: SqlOptions) -> Part:
    query = "pattern" if options.patterns else "virtual"
    return Part(query=query, values={"user": user, "host": host})


def _match(
    rows: Sequence[Row],
    local: bytes,
    host: bytes,
    options: SqlOptions,
    notes: Notes,
) -> bytes | None:
    """The address the best row stores mail for local@host under, or None."""
    row = best_virtual(rows, local, patterns=options.patterns)
    if row is None:
        notes.steps.append(f"virtual has no row for {shown(local + b'@' + host)}")
        return None
    notes.steps.append(f"virtual row {_row(row)} matches")
    return _stored(row, local, host, options)


def best_virtual(rows: Sequence[Row], local: bytes, *, patterns: bool) -> Row | None:
    """The row for a local part: exact, then patterns, then blank.

    Of several patterns the one with most characters that are no wildcards, of
    rows that are equal in this the first by its bytes.
    """

    def rank(row: Row) -> tuple[int, int, tuple[bytes, ...]]:
        cells = tuple(map(text, row))
        name = cells[2].lower()
        if name == local.lower():
            return 0, 0, cells
        if not name:
            return 2, 0, cells
        literal = len(name.replace(b"%", b"").replace(b"_", b""))
        return (1 if patterns else 3), -literal, cells

    # A table whose collation is looser than ours gives rows that only resemble.
    ranked = [row for row in rows if rank(row)[0] < 3]
    return min(ranked, key=rank, default=None)


def _stored(row: Row, local: bytes, host: bytes, options: SqlOptions) -> bytes:
    username, ext = text(row[0]), text(row[1])
    if not username:
        raise Misconfigured(f"virtual row {_row(row)} has no username")
    if not is_line(username + ext):
        raise Misconfigured(f"virtual row {_row(row)} has a line end")
    if options.magicforwarding and is_forward(row):
        target = forward_target(ext)
        if target.lower() == (local + b"@" + host).lower():
            raise Misconfigured(f"virtual row {_row(row)} forwards to itself")
    if ext == CATCH_ALL_EXT:
        ext = local
    return username + (BREAK + ext if ext else b"") + b"@" + host


def is_forward(row: Row) -> bool:
    """Whether a row of virtual sends on, given control/magicforwarding."""
    return text(row[0]).lower() == FORWARD


def forward_target(ext: bytes) -> bytes:
    """The address in `ext` of such a row. Raises: Misconfigured."""
    user, at, host = ext.rpartition(b"@")
    if not (user and at and host) or not is_line(ext):
        raise Misconfigured(f"virtual row forward: ext {shown(ext)} is no address")
    return ext


def _row(row: Row) -> str:
    return "(" + ", ".join(shown(text(cell)) for cell in row) + ")"


@dataclass(frozen=True, slots=True)
class Unlisted:
    """No such recipient, for good: its host is ours by the database (#5.1.1)."""


def settle(
    address: bytes, place: Stored | Listing, rules: Rules
) -> tuple[Channel, bytes] | Unlisted:
    """Where a recipient goes, with what the control files say.

    Args:
        address: as `ask_locality` had it.
        place: what the database says of it.
        rules: the controls in force.
    Returns: the channel and the stored address. What the database does not take,
        control/virtualdomains decides; at a domain in locals that file is asked for
        the address at envnoathost. A host with rows in virtual never goes remote:
        Unlisted.
    """
    if isinstance(place, Stored):
        return Channel.LOCAL, place.address
    local, _, domain = address.rpartition(b"@")
    if domain.lower() in rules.locals:
        replaced = local + b"@" + rules.envnoathost
        prepend = prepended(replaced, rules.virtualdomains)
        if prepend:
            return Channel.LOCAL, prepend + BREAK + replaced
        return Channel.LOCAL, address
    if place is Listing.HOST:
        prepend = prepended(address, rules.virtualdomains)
        return (Channel.LOCAL, prepend + BREAK + address) if prepend else Unlisted()
    return rewrite(address, rules)
