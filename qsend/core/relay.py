"""Whose mail a listener takes: rcpthosts, RELAYCLIENT, badmailfrom, localiphost.

A recipient is judged under the address that the queue manager would make of it, so
that percenthack opens no way out. Where nothing lists a host nobody's mail is relayed.
Must not: read a file or ask the database; the answers are arguments.
Source: qmail-smtpd.c addrallowed, bmfcheck, addrparse; rcpthosts.c; qmail-smtpd(8).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import assert_never

from qsend.core.lookups import YesNo
from qsend.core.mx import literal
from qsend.core.rewrite import Rules, qualified
from qsend.core.users import Trouble

HOST_MAX = 255
"""Longest name in the DNS; nothing longer is anybody's host."""
RECIP_MAX = 999
"""Longest recipient, the suffix of RELAYCLIENT included (qmail-qmtpd.c)."""

NOT_LISTED = "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
BAD_SENDER = "sorry, your envelope sender is in my badmailfrom list (#5.7.1)"
TROUBLE = "unable to check whether mail for that domain is taken here (#4.3.0)"
NO_MAILBOX = "sorry, no mailbox here by that name (#5.1.1)"
UNCHECKED = "unable to check whether that mailbox exists (#4.3.0)"
TOO_LONG = "sorry, that address is too long (#5.1.3)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRules:
    """The controls that say whose mail is taken; all names are lower case.

    `rcpthosts` is None when the file is missing, which here means that it lists
    nothing. `localiphost` is b"" where nothing is put in the place of an address.
    """

    rewriting: Rules
    rcpthosts: frozenset[bytes] | None = None
    badmailfrom: frozenset[bytes] = frozenset()
    localiphost: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The recipient is accepted, and its address in the envelope is `recip`."""

    recip: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlisted:
    """control/rcpthosts does not list `host` (lower case); others may, see `settle`."""

    recip: bytes
    host: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Not accepted; `text` is for the client, without a code but with (#x.y.z)."""

    text: str
    is_permanent: bool


def judge_recipient(
    recip: bytes, rules: RelayRules, relay_suffix: bytes | None
) -> Taken | Unlisted | Refused:
    """What control/rcpthosts and RELAYCLIENT say of a recipient.

    Without a host a recipient is this machine's own. A client that may relay never
    waits for anything.

    Args:
        recip: unquoted, without route, localiphost applied.
        relay_suffix: $RELAYCLIENT, b"" also for a client that logged in; None for a
            client that may not relay.
    """
    if relay_suffix is not None:
        if len(recip) + len(relay_suffix) > RECIP_MAX:
            return Refused(text=TOO_LONG, is_permanent=True)
        return Taken(recip=recip + relay_suffix)
    address = qualified(recip, rules.rewriting)
    if b"@" not in recip and address == recip + b"@" + rules.rewriting.envnoathost:
        return Taken(recip=recip)
    host = address.rpartition(b"@")[2].lower()
    if len(host) > HOST_MAX:
        return Refused(text=NOT_LISTED, is_permanent=True)
    listed = rules.rcpthosts or frozenset()
    if any(key in listed for key in host_keys(host)):
        return Taken(recip=recip)
    return Unlisted(recip=recip, host=host)


def settle(unlisted: Unlisted, *answers: YesNo) -> Taken | Refused:
    """The judgement when morercpthosts.cdb and the database have answered.

    A "yes" counts whatever else is in trouble; trouble is no "no".
    """
    if any(answer is True for answer in answers):
        return Taken(recip=unlisted.recip)
    for answer in answers:
        match answer:
            case Trouble():
                return Refused(text=TROUBLE, is_permanent=False)
            case bool():
                continue
            case _:
                assert_never(answer)
    return Refused(text=NOT_LISTED, is_permanent=True)


def judge_existence(taken: Taken, answer: YesNo) -> Taken | Refused:
    """The judgement when lookup has said whether there is such a recipient."""
    match answer:
        case Trouble():
            return Refused(text=UNCHECKED, is_permanent=False)
        case True:
            return taken
        case False:
            return Refused(text=NO_MAILBOX, is_permanent=True)


def host_keys(host: bytes) -> list[bytes]:
    """`sub.dom`, `.dom`: what a list may have for a host, in lower case."""
    name = host.lower()
    dots = [at for at in range(1, len(name)) if name[at : at + 1] == b"."]
    return [name, *(name[at:] for at in dots)]


def is_bad_sender(sender: bytes, rules: RelayRules) -> bool:
    """Whether badmailfrom has the sender, or `@` and its host."""
    address = sender.lower()
    _, at, host = address.rpartition(b"@")
    return address in rules.badmailfrom or bool(at and at + host in rules.badmailfrom)


def replace_literal(address: bytes, rules: RelayRules, own: Container[str]) -> bytes:
    """The address with localiphost in the place of one of this machine's addresses.

    Args:
        address: as the client gave it, `joe@[192.0.2.1]` or any other.
        own: this machine's addresses, canonical.
    """
    local, at, host = address.rpartition(b"@")
    if not (at and rules.localiphost and host[:1] == b"[" and host[-1:] == b"]"):
        return address
    found = literal(host)
    return (
        address if found is None or found not in own else local + at + rules.localiphost
    )


def relay_warning(
    rules: RelayRules, *, has_more: bool, has_database: bool
) -> str | None:
    """Why only clients with RELAYCLIENT can send anything here, or None.

    Args:
        has_more: whether control/morercpthosts.cdb is there.
        has_database: whether the database is asked for hosts.
    """
    if rules.rcpthosts or has_more or has_database:
        return None
    what = "is missing" if rules.rcpthosts is None else "is empty"
    return (
        f"control/rcpthosts {what}: mail is taken only from clients with RELAYCLIENT"
        " or a login"
    )
