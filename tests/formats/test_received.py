"""The Received line of queueing, byte for byte."""

from __future__ import annotations

import pytest

from qsend.core.model import Account, Accounts
from qsend.formats.received import invoker, render_received


def accounts(*uids: int) -> Accounts:
    names = ("alias", "qmaild", "qmaill", "qmailp", "qmailq", "qmailr", "qmails")
    made = {
        name: Account(uid=uid, gid=9) for name, uid in zip(names, uids, strict=True)
    }
    return Accounts(**made, root=Account(uid=0, gid=9))


@pytest.mark.parametrize(
    ("uid", "want"),
    [
        (1, b"by alias"),
        (2, b"from network"),
        (7, b"for bounce"),
        (5, b"by uid 5"),
        (0, b"by uid 0"),
        (1000, b"by uid 1000"),
    ],
)
def test_invoker_names_the_role(uid: int, want: bytes) -> None:
    assert invoker(uid, accounts(1, 2, 3, 4, 5, 6, 7)) == want


def test_invoker_in_single_user_mode_is_the_uid() -> None:
    assert invoker(500, accounts(*[500] * 7)) == b"by uid 500"


@pytest.mark.parametrize(
    ("now", "want"),
    [
        (0, b"1 Jan 1970 00:00:00"),
        (951782399, b"28 Feb 2000 23:59:59"),
        (951782400, b"29 Feb 2000 00:00:00"),
        (1767225599, b"31 Dec 2025 23:59:59"),
        (4102444800, b"1 Jan 2100 00:00:00"),
    ],
)
def test_render_received_is_one_line_in_utc(now: int, want: bytes) -> None:
    line = render_received(4194304, b"by uid 7", now)
    assert line == (
        b"Received: (qmail 4194304 invoked by uid 7); " + want + b" -0000\n"
    )
