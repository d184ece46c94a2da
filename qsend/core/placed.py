"""A recipient with its channel, its stored address, and what must be noted of it."""

from __future__ import annotations

from dataclasses import dataclass

from qsend.core.lookups import Listing, Stored
from qsend.core.message import Note
from qsend.core.model import Channel
from qsend.core.rewrite import Rules, strip_prepend
from qsend.core.sqllocality import Unlisted, settle


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Where mail for one recipient goes, and under which address it is stored."""

    channel: Channel
    address: bytes
    note: Note | None = None


def placed(address: bytes, place: Stored | Listing, rules: Rules) -> Rewritten:
    """A recipient of which the database was asked.

    Args:
        address: with its domain, after percenthack.
        place: the answer.
        rules: the controls in force.
    Returns: with a note when the stored address does not tell the original, and
        for a recipient that does not exist: that one is local in name only.
    """
    settled = settle(address, place, rules)
    if isinstance(settled, Unlisted):
        return Rewritten(Channel.LOCAL, address, Note(address, is_unknown=True))
    channel, stored = settled
    if channel is Channel.REMOTE:
        return Rewritten(channel, stored)
    is_told = strip_prepend(stored, rules.virtualdomains) == address
    return Rewritten(channel, stored, None if is_told else Note(address))
