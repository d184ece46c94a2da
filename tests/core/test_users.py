"""What a local part may mean, and as whom mail is never delivered."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from qsend.core import users
from qsend.core.model import Account, Accounts, Ownership


def accounts(first_uid: int = 7001) -> Accounts:
    names = [field.name for field in fields(Accounts)]
    made = {
        name: Account(uid=first_uid + at, gid=7100) for at, name in enumerate(names)
    }
    return replace(Accounts(**made), root=Account(uid=0, gid=7100))


CANDIDATES = [
    (b"joe", [(b"joe", b"", b"")]),
    (b"JOE", [(b"joe", b"", b"")]),
    (
        b"Joe-Lists-X",
        [
            (b"joe-lists-x", b"", b""),
            (b"joe-lists", b"-", b"X"),
            (b"joe", b"-", b"Lists-X"),
        ],
    ),
    (b"joe-", [(b"joe-", b"", b""), (b"joe", b"-", b"")]),
    (b"joe--", [(b"joe--", b"", b""), (b"joe-", b"-", b""), (b"joe", b"-", b"-")]),
    (b"-joe", [(b"-joe", b"", b"")]),
    (b"-", [(b"-", b"", b"")]),
    (b"", []),
    (b"a\0-b", []),
    (b"a-\0b", [(b"a", b"-", b"\0b")]),
    (b"\xc4-x", [(b"\xc4-x", b"", b""), (b"\xc4", b"-", b"x")]),
    (b"n" * 255, [(b"n" * 255, b"", b"")]),
    (b"n" * 256, []),
    (b"a-" + b"n" * 300, [(b"a", b"-", b"n" * 300)]),
]


@pytest.mark.parametrize(("local", "want"), CANDIDATES)
def test_passwd_candidates(
    local: bytes, want: list[tuple[bytes, bytes, bytes]]
) -> None:
    found = users.passwd_candidates(local)
    assert [(c.name, c.dash, c.ext) for c in found] == want


def test_passwd_candidates_of_the_longest_address_are_few() -> None:
    assert len(list(users.passwd_candidates(b"-" * 1002))) == users.NAME_MAX


def test_alias_user_takes_the_whole_local_part() -> None:
    user = users.alias_user(b"Bill-X", Account(uid=5, gid=6), b"/q/alias")
    assert (user.uid, user.gid, user.home) == (5, 6, b"/q/alias")
    assert (user.dash, user.ext, user.ownership) == (b"-", b"Bill-X", Ownership.TRUSTED)
    assert users.is_fallback(user, b"Bill-X")
    assert not users.is_fallback(replace(user, ext=b"X"), b"Bill-X")
    assert not users.is_fallback(replace(user, name=b"bill"), b"Bill-X")


def test_refusal_of_root_and_of_qsends_accounts() -> None:
    made = accounts()
    for field in fields(Accounts):
        account: Account = getattr(made, field.name)
        refused = users.refusal(account.uid, made, single_user=False) is not None
        assert refused == (field.name != "alias"), field.name
    assert users.refusal(8000, made, single_user=False) is None


def test_refusal_in_single_user_mode_of_all_but_that_user() -> None:
    me = Account(uid=1000, gid=1000)
    made = Accounts(**{field.name: me for field in fields(Accounts)})
    assert users.refusal(1000, made, single_user=True) is None
    assert users.refusal(1001, made, single_user=True) == "only uid 1000 is served here"
    as_root = Accounts(**{f.name: Account(uid=0, gid=0) for f in fields(Accounts)})
    assert users.refusal(0, as_root, single_user=True) is not None
