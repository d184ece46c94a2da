"""Whether there is a recipient of an address.

The address goes the way that send, lspawn and a local delivery would take it.
What another account keeps from us counts as there: the delivery will see.
Source: core/sqllocality.py settle(); dot-qmail(5); docs/VIRTUAL.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from qsend.core import dotqmail
from qsend.core.address import split
from qsend.core.lookups import Locality, YesNo
from qsend.core.model import Channel, User
from qsend.core.rewrite import Rules, qualified
from qsend.core.sqllocality import Unlisted
from qsend.core.users import NoUser, Outcome, Trouble
from qsend.sysio.resolver import Resolver

_ABSENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
)
"""Errors that say "no such file"; with any other the file may be there."""


def exists(
    address: bytes, rules: Rules, resolver: Resolver, done: Callable[[YesNo], None]
) -> None:
    """Whether mail for an address would not bounce here. Remote ones count as there.

    Args:
        address: as a client gave it.
        rules: the controls in force.
    """
    whole = qualified(address, rules)

    def located(locality: Locality) -> None:
        if isinstance(locality, Trouble):
            done(locality)
            return
        place = resolver.settle(whole, locality, rules)
        if isinstance(place, Unlisted):
            done(False)
        elif place[0] is Channel.REMOTE:
            done(True)
        elif local := split(place[1])[0]:
            resolver.user(local, found)
        else:
            done(True)  # nobody's: lspawn lets it vanish

    def found(outcome: Outcome) -> None:
        match outcome:
            case Trouble():
                done(outcome)
            case NoUser():
                done(False)
            case User():
                done(has_mailbox(outcome))

    resolver.locality(whole, located)


def has_mailbox(user: User) -> bool:
    """Whether a delivery to the user finds instructions, as far as we can see."""
    if user.instructions is not None or not user.dash:
        return True
    try:
        home_fd = os.open(user.home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return any(
            _is_there(home_fd, candidate.name)
            for candidate in dotqmail.candidates(user.dash, user.ext)
        )
    finally:
        os.close(home_fd)


def _is_there(home_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=home_fd)
    except ValueError:
        return False  # a NUL in the name
    except OSError as exc:
        return exc.errno not in _ABSENT
    return True
