"""The Received line that queueing puts in front of every message.

Source: qmail-queue.c received_setup(), datetime.c; queue_layout.md.
"""

from __future__ import annotations

from qsend.core.calendar import render_date
from qsend.core.model import Accounts

BY_ALIAS = b"by alias"
FROM_NETWORK = b"from network"
FOR_BOUNCE = b"for bounce"


def by_uid(uid: int) -> bytes:
    """`by uid N`, for everybody without a role of his own."""
    return b"by uid %d" % uid


def invoker(uid: int, accounts: Accounts) -> bytes:
    """Who invoked, in the words of the Received line.

    Where all roles are one user (single-user mode) no uid tells a role, so the
    answer is `by uid N`.
    """
    if accounts.alias.uid == accounts.qmails.uid:
        return by_uid(uid)
    words = {
        accounts.alias.uid: BY_ALIAS,
        accounts.qmaild.uid: FROM_NETWORK,
        accounts.qmails.uid: FOR_BOUNCE,
    }
    return words.get(uid) or by_uid(uid)


def render_received(pid: int, who: bytes, now: int) -> bytes:
    """The whole line with its LF.

    Args:
        pid: what the log calls qp.
        who: from `invoker`.
        now: wall clock, whole seconds; shown in UTC, whose zone qmail writes -0000.
    """
    return b"Received: (qmail %d invoked %b); %b\n" % (pid, who, render_date(now))
