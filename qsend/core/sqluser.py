"""Whose mail a local part is, by the database and the machine.

At each break, longest name first: the mailbox table, then accounts of the machine;
at last alias. users/cdb comes before all this (core/sqlalias.py has its
instructions). With control/magicforwarding, `forward-` and an address that a row of
virtual names is sent on.
Source: docs/VIRTUAL.md, qmail-getpw(8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qsend.core.errors import TempFail
from qsend.core.model import Account, Ownership, User
from qsend.core.sqlalias import alias_part, instructed
from qsend.core.sqllocality import (
    ask_locality,
    best_virtual,
    forward_target,
    is_forward,
)
from qsend.core.sqlrules import (
    FORWARD,
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
from qsend.core.users import (
    ALIAS,
    BREAK,
    Candidate,
    NoUser,
    Outcome,
    Trouble,
    passwd_candidates,
)

_FORWARD_PREFIX = FORWARD + BREAK


def ask_user(local: bytes, options: SqlOptions) -> Ask:
    """The question for a local part (not empty) that users/cdb does not know."""
    parts = []
    for candidate in passwd_candidates(local):
        parts.append(Part(query="mailbox", values={"username": candidate.name}))
        parts.append(alias_part(candidate.name, candidate.ext))
    parts.append(alias_part(ALIAS, local))
    target = _target(local, options)
    if target is not None:
        parts.append(Part(query="forward", values={"ext": target}))
        parts += ask_locality(target, options).parts
    return Ask(parts=tuple(parts))


def judge_user(
    rows: Sequence[Row], local: bytes, options: SqlOptions, machine: Machine
) -> Judged[Outcome]:
    """Who takes `local`, with instructions when alias rows decide.

    Trouble when a row that matters cannot be meant, names a uid that gets no mail,
    or its home cannot be looked at: the mail waits. A home that another uid or gid
    owns makes it alias's mail.
    """
    notes = Notes()
    try:
        return notes.judged(_judge(rows, local, options, machine, notes))
    except TempFail as exc:
        notes.trouble(exc)
        return notes.judged(Trouble(text=str(exc).encode()))


def _judge(
    rows: Sequence[Row],
    local: bytes,
    options: SqlOptions,
    machine: Machine,
    notes: Notes,
) -> Outcome:
    found = rows_by_part(ask_user(local, options), rows)
    candidates = list(passwd_candidates(local))
    for_fallback = found[2 * len(candidates)]
    forwarded = found[2 * len(candidates) + 1 :]
    target = _target(local, options)
    if target and any(text(row[1]) == target for row in forwarded[0]):
        return _forward(local, target, forwarded[1:], options, machine, notes)
    for at, candidate in enumerate(candidates):
        mailboxes, aliases = found[2 * at], found[2 * at + 1]
        user = _named(candidate, mailboxes, options, machine)
        notes.steps.append(_step(candidate, user))
        if user is None:
            continue
        if user.ownership is Ownership.UID_GID and not _owns_home(user, machine, notes):
            break
        return instructed(user, aliases, options, notes)
    fallback = machine.fallback(local)
    if isinstance(fallback, NoUser):
        notes.steps.append("no alias account: no such user")
        return fallback
    notes.steps.append("alias takes it")
    return instructed(fallback, for_fallback, options, notes)


def _named(
    candidate: Candidate,
    mailboxes: Sequence[Row],
    options: SqlOptions,
    machine: Machine,
) -> User | None:
    """The user of that name: by its mailbox row, else by the machine."""
    for row in mailboxes:
        if text(row[0]).lower() == candidate.name:
            return mailbox_user(row, candidate, options, machine)
    return machine.account(candidate)


def _step(candidate: Candidate, user: User | None) -> str:
    name = shown(candidate.name)
    if user is None:
        return f"no mailbox row and no account {name}"
    if user.ownership is Ownership.UID_GID:
        return f"mailbox row {name}: uid {user.uid}, gid {user.gid}"
    return f"no mailbox row, but an account {name}"


def _owns_home(user: User, machine: Machine, notes: Notes) -> bool:
    """Whether uid and gid of a mailbox row are those of its home.

    Raises: TempFail when the home is not there or cannot be looked at.
    """
    owner = machine.owner(user.home)
    where = f"mailbox row {shown(user.name)}: home {shown(user.home)}"
    if owner is None:
        raise TempFail(f"{where} does not exist")
    if owner == Account(uid=user.uid, gid=user.gid):
        return True
    line = (
        f"{where} belongs to {owner.uid}:{owner.gid}, not to {user.uid}:{user.gid};"
        " its mail goes to alias"
    )
    notes.log.append(f"warning: {line}")
    notes.steps.append(line)
    return False


def _target(local: bytes, options: SqlOptions) -> bytes | None:
    """The address that `forward-address` sends on to, if a row names it."""
    if not options.magicforwarding or not local.lower().startswith(_FORWARD_PREFIX):
        return None
    target = local[len(_FORWARD_PREFIX) :]
    return target if b"@" in target else None


def _forward(
    local: bytes,
    target: bytes,
    rows: Sequence[Sequence[Row]],
    options: SqlOptions,
    machine: Machine,
    notes: Notes,
) -> Outcome:
    """alias with the one instruction to send on.

    Two guards against loops: the delivery writes and checks Delivered-To as any
    other, and a target that virtual forwards again is refused here, before the
    first copy leaves.
    """
    if _is_forwarded_again(target, rows, options, machine):
        raise Misconfigured(f"forward to {shown(target)}, which is forwarded again")
    fallback = machine.fallback(local)
    if isinstance(fallback, NoUser):
        return fallback
    notes.steps.append(f"magic forwarding to {shown(target)}")
    return replace(fallback, instructions=b"&" + forward_target(target) + b"\n")


def _is_forwarded_again(
    target: bytes,
    rows: Sequence[Sequence[Row]],
    options: SqlOptions,
    machine: Machine,
) -> bool:
    """Whether mail for `target` would meet a forward row; `rows` are its locality's."""
    local, _, domain = target.rpartition(b"@")
    is_own = domain.lower() in options.locals
    if is_own and rows[3]:
        return False
    row = best_virtual(rows[0], local, patterns=options.patterns)
    if row is not None or not is_own:
        return row is not None and is_forward(row)
    if any(rows[4:]) or any(map(machine.account, passwd_candidates(local))):
        return False
    row = best_virtual(rows[2], local, patterns=options.patterns)
    return row is not None and is_forward(row)
