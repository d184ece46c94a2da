"""Users: mailbox, accounts, alias; whose uid and home are believed."""

from __future__ import annotations

import pytest

from qsend.core.errors import TempFail
from qsend.core.model import Account, Ownership
from qsend.core.users import NoUser
from tests.sqlworld import ACCOUNTS, World, trouble_of, user_of


def row(name: str = "joe", **changes: object) -> tuple[str | int | None, ...]:
    """A mailbox row with some columns changed."""
    cells: dict[str, object] = {
        "username": name,
        "uid": 800,
        "gid": 100,
        "home": f"/mail/{name}",
        "password": "",
        "password_type": "Password",
        "suspended": "N",
        **changes,
    }
    return tuple(cells.values())  # type: ignore[arg-type] # as the table has them


def test_mailbox_comes_before_passwd(world: World) -> None:
    world.mailbox("joe")
    world.passwd[b"joe"] = Account(uid=1001, gid=1001)
    assert user_of(world.user("joe")).uid == 800


def test_no_row_means_passwd(world: World) -> None:
    world.passwd[b"joe"] = Account(uid=1001, gid=1001)
    user = user_of(world.user("Joe-List"))
    assert (user.uid, user.ext, user.ownership) == (1001, b"List", Ownership.UID)


def test_longest_name_wins_whether_row_or_account(world: World) -> None:
    world.mailbox("a", "a-b-c")
    world.passwd[b"a-b"] = Account(uid=1001, gid=1001)
    found = {
        local: user_of(world.user(local))
        for local in ("a", "a-x", "a-b", "a-b-x", "a-b-c", "a-b-c-x")
    }
    names = {local: (user.name, user.ext) for local, user in found.items()}
    assert names == {
        "a": (b"a", b""),
        "a-x": (b"a", b"x"),
        "a-b": (b"a-b", b""),
        "a-b-x": (b"a-b", b"x"),
        "a-b-c": (b"a-b-c", b""),
        "a-b-c-x": (b"a-b-c", b"x"),
    }


def test_name_is_compared_in_lower_case_and_the_extension_kept(world: World) -> None:
    world.mailbox("joe")
    user = user_of(world.user("JOE-List"))
    assert (user.name, user.dash, user.ext) == (b"joe", b"-", b"List")


def test_names_over_32_characters_and_with_an_at_sign_work(world: World) -> None:
    name = f"{'long' * 50}@customer.example"
    world.mailbox(name, "joe@customer-one.example")
    assert user_of(world.user(name)).name == name.encode()
    user = user_of(world.user("joe@customer-one.example"))
    assert (user.name, user.ext) == (b"joe@customer-one.example", b"")
    user = user_of(world.user("joe@customer-one.example-list"))
    assert user.ext == b"list"


@pytest.mark.parametrize("local", ["joe ", "j%", "jo\xff", "joe\0"])
def test_what_only_resembles_a_name_is_another(world: World, local: str) -> None:
    world.mailbox("joe")
    assert user_of(world.user(local)).name == b"alias"


def test_unknown_accounts_are_alias_users(world: World) -> None:
    world.mailbox("joe")
    user = user_of(world.user("Nobody-x"))
    assert (user.name, user.dash, user.ext) == (b"alias", b"-", b"Nobody-x")
    assert user.ownership is Ownership.TRUSTED


def test_without_alias_account_there_is_no_such_user(world: World) -> None:
    world.has_alias = False
    assert isinstance(world.user("nobody").answer, NoUser)


@pytest.mark.parametrize(
    "owner", [Account(uid=801, gid=100), Account(uid=800, gid=101)]
)
def test_home_of_another_uid_or_gid_resolves_to_alias(
    world: World, owner: Account
) -> None:
    world.owners[b"/mail/joe"] = owner
    world.passwd[b"joe"] = Account(uid=1001, gid=1001)
    world.mailbox("joe")
    judged = world.user("joe")
    user = user_of(judged)
    assert (user.name, user.ext) == (b"alias", b"joe")
    (line,) = judged.log
    assert line == (
        "warning: mailbox row 'joe': home '/mail/joe' belongs to"
        f" {owner.uid}:{owner.gid}, not to 800:100; its mail goes to alias"
    )


def test_alias_rows_take_what_a_wrong_home_lost(world: World) -> None:
    world.owners[b"/mail/joe"] = Account(uid=1, gid=1)
    world.mailbox("joe")
    world.insert("alias", ("alias", "joe", "postmaster", ""))
    assert user_of(world.user("joe")).instructions == b"&postmaster\n"


def test_unreadable_home_defers(world: World) -> None:
    world.owners[b"/mail/joe"] = TempFail("/mail/joe: I/O error")
    world.mailbox("joe")
    assert trouble_of(world.user("joe")) == "/mail/joe: I/O error"


def test_missing_home_defers(world: World) -> None:
    world.owners[b"/mail/joe"] = None
    world.mailbox("joe")
    text = trouble_of(world.user("joe"))
    assert text == "mailbox row 'joe': home '/mail/joe' does not exist"


@pytest.mark.parametrize(
    ("uid", "reason"),
    [
        (0, "deliveries as root are refused"),
        (ACCOUNTS.qmailq.uid, "deliveries as qmailq are refused"),
        (ACCOUNTS.qmaild.uid, "deliveries as qmaild are refused"),
        (ACCOUNTS.alias.uid, "deliveries as alias are refused"),
        (99, "below control/sqlminuid (100)"),
    ],
)
def test_system_uids_are_refused_with_an_alert_and_deferred(
    world: World, uid: int, reason: str
) -> None:
    world.insert("mailbox", row(uid=uid))
    judged = world.user("joe")
    assert trouble_of(judged) == f"mailbox row 'joe': uid {uid}: {reason}"
    assert judged.log[0].startswith("alert: ")


def test_sqlminuid_moves_the_bound(world: World) -> None:
    world.insert("mailbox", row(uid=99))
    world.control(minuid=99)
    assert user_of(world.user("joe")).uid == 99
    world.control(minuid=1000)
    assert user_of(world.user("nobody")).name == b"alias"
    assert "sqlminuid (1000)" in trouble_of(world.user("joe"))


def test_single_user_serves_its_own_uid_only(world: World) -> None:
    world.single_user = True
    world.insert("mailbox", row("own", uid=901, gid=901), row("other"))
    assert user_of(world.user("own")).uid == 901
    assert "only uid 901" in trouble_of(world.user("other"))


@pytest.mark.parametrize("home", ["", "mail/joe", "/mail/joe\nx", "/mail/\0joe"])
def test_home_that_is_no_absolute_path_defers(world: World, home: str) -> None:
    world.insert("mailbox", row(home=home))
    text = trouble_of(world.user("joe"))
    assert text.startswith("MySQL misconfiguration: mailbox row 'joe': home ")


def test_user_of_an_extension_with_a_bad_row_defers_too(world: World) -> None:
    world.insert("mailbox", row(uid=0))
    assert trouble_of(world.user("joe-list"))


def test_a_bad_row_of_a_shorter_name_does_not_matter(world: World) -> None:
    world.insert("mailbox", row(uid=0))
    world.mailbox("joe-list")
    assert user_of(world.user("joe-list")).name == b"joe-list"


def test_whois_is_told_the_steps(world: World) -> None:
    world.mailbox("joe")
    world.insert("alias", ("joe", "@", "ann", ""))
    assert world.user("joe-x-y").steps == (
        "no mailbox row and no account 'joe-x-y'",
        "no mailbox row and no account 'joe-x'",
        "mailbox row 'joe': uid 800, gid 100",
        "alias rows ('joe', '@') decide: 1 instructions",
    )


def test_many_dashes_are_asked_in_one_round_trip(world: World) -> None:
    world.mailbox("a")
    local = "a" + "-b" * 120
    user = user_of(world.user(local))
    assert (user.name, user.ext) == (b"a", local[2:].encode())
