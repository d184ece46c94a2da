"""Logins by the mailbox table, hosts by the rcpthosts table."""

from __future__ import annotations

import pytest

from qsend.core.sqllogin import MailboxLogin, PasswordType, ask_rcpthost
from tests.sqlworld import World, trouble_of


def mailbox(world: World, name: str) -> MailboxLogin:
    login = world.login(name).answer
    assert isinstance(login, MailboxLogin)
    return login


@pytest.mark.parametrize("kind", list(PasswordType))
def test_password_type_says_what_is_stored(world: World, kind: PasswordType) -> None:
    world.insert("mailbox", ("joe", 800, 100, "/m/joe", "x", kind.value, "N"))
    login = mailbox(world, "joe")
    assert (login.kind, login.password) == (kind, b"x")
    assert (login.user.uid, login.user.home) == (800, b"/m/joe")


def test_no_row_means_accounts_of_the_machine(world: World) -> None:
    world.mailbox("joe")
    assert world.login("ann").answer is None
    assert world.login("").answer is None
    assert world.login("joe-x").answer is None


def test_login_is_compared_in_lower_case(world: World) -> None:
    world.mailbox("joe@v.example")
    assert mailbox(world, "Joe@V.example").user.name == b"joe@v.example"


@pytest.mark.parametrize("name", ["joe ", "jo%", "j\xff"])
def test_what_resembles_a_login_is_another(world: World, name: str) -> None:
    world.mailbox("joe")
    assert world.login(name).answer is None


@pytest.mark.parametrize(
    ("cell", "want"), [("Y", True), ("y", True), ("N", False), ("", False)]
)
def test_suspended(world: World, cell: str, want: bool) -> None:
    world.insert("mailbox", ("joe", 800, 100, "/m/joe", "x", "Password", cell))
    assert mailbox(world, "joe").suspended is want


def test_suspended_user_still_gets_mail(world: World) -> None:
    world.insert("mailbox", ("joe", 800, 100, "/m/joe", "x", "Password", "Y"))
    assert world.user("joe").answer != world.user("nobody").answer


def test_blank_password_is_none(world: World) -> None:
    world.mailbox("joe")
    assert mailbox(world, "joe").password is None


@pytest.mark.parametrize(
    ("kind", "suspended"), [("SHA1", "N"), ("", "N"), ("Password", "X")]
)
def test_login_row_that_cannot_be_meant_is_trouble(
    world: World, kind: str, suspended: str
) -> None:
    world.insert("mailbox", ("joe", 800, 100, "/m/joe", "s3cret", kind, suspended))
    text = trouble_of(world.login("joe"))
    assert text.startswith("MySQL misconfiguration: mailbox row 'joe': ")
    assert "s3cret" not in text


def test_login_of_a_system_uid_is_refused(world: World) -> None:
    world.insert("mailbox", ("joe", 0, 0, "/m/joe", "x", "Password", "N"))
    judged = world.login("joe")
    assert "deliveries as root are refused" in trouble_of(judged)
    assert judged.log[0].startswith("alert: ")


def test_password_is_in_no_repr(world: World) -> None:
    world.insert("mailbox", ("joe", 800, 100, "/m/joe", "s3cret", "Password", "N"))
    assert "s3cret" not in repr(world.login("joe"))


@pytest.mark.parametrize(
    ("host", "want"),
    [
        ("v.example", True),
        ("V.Example", True),
        ("sub.v.example", False),
        ("w.example", False),
        ("a.w.example", True),
        ("a.b.w.example", True),
        ("example", False),
        ("", False),
        ("v.example ", False),
        ("v\xff.example", False),
        ("x" * 300, False),
    ],
)
def test_rcpthosts_table(world: World, host: str, want: bool) -> None:
    world.insert("rcpthosts", ("v.example",), (".w.example",))
    assert world.rcpthost(host).answer is want


def test_host_of_many_dots_is_asked_in_bounded_parts() -> None:
    assert len(ask_rcpthost(b"a." * 127).parts) == 128
    assert ask_rcpthost(b"a." * 200).parts == ()
