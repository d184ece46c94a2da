"""Alias rows: which decide, and what they say."""

from __future__ import annotations

import pytest

from qsend.core.dotqmail import Forward, Maildir, Mbox, Program, parse
from qsend.core.model import INSTRUCTIONS_MAX, Account, Ownership, User
from tests.sqlworld import World, trouble_of, user_of


@pytest.fixture
def joe(world: World) -> World:
    """`joe` has a mailbox."""
    world.mailbox("joe")
    return world


def said(world: World, local: str) -> bytes | None:
    return user_of(world.user(local)).instructions


def test_no_rows_leave_the_files_of_the_home(joe: World) -> None:
    assert said(joe, "joe") is None
    assert said(joe, "joe-x") is None


def test_order_is_exact_then_at_sign_then_blank(joe: World) -> None:
    joe.insert("alias", ("joe", "", "blank", ""))
    assert said(joe, "joe-x") == b"&blank\n"
    joe.insert("alias", ("joe", "@", "at", ""))
    assert said(joe, "joe-x") == b"&at\n"
    joe.insert("alias", ("joe", "x", "exact", ""))
    assert said(joe, "joe-x") == b"&exact\n"
    assert said(joe, "joe-y") == b"&at\n"


def test_bare_user_takes_the_blank_row(joe: World) -> None:
    joe.insert("alias", ("joe", "@", "at", ""), ("joe", "x", "exact", ""))
    assert said(joe, "joe") is None
    joe.insert("alias", ("joe", "", "blank", ""))
    assert said(joe, "joe") == b"&blank\n"


def test_blank_catchall_can_be_switched_off(joe: World) -> None:
    joe.insert("alias", ("joe", "", "blank", ""))
    joe.control(blank_catchall=False)
    assert said(joe, "joe-x") is None
    assert said(joe, "joe") == b"&blank\n"
    joe.insert("alias", ("joe", "@", "at", ""))
    assert said(joe, "joe-x") == b"&at\n"


def test_extension_is_compared_whole_and_in_lower_case(joe: World) -> None:
    joe.insert("alias", ("joe", "list-x", "one", ""), ("joe", "list", "two", ""))
    assert said(joe, "Joe-LIST-X") == b"&one\n"
    assert said(joe, "joe-list") == b"&two\n"
    assert said(joe, "joe-list-y") is None


def test_rows_belong_to_the_user_that_was_found(joe: World) -> None:
    joe.insert("alias", ("joe", "list", "one", ""))
    joe.mailbox("joe-list")
    assert said(joe, "joe-list") is None


def test_rows_of_accounts_of_the_machine_count(world: World) -> None:
    world.passwd[b"ann"] = Account(uid=1001, gid=1001)
    world.insert("alias", ("ann", "x", "one", ""))
    user = user_of(world.user("ann-x"))
    assert (user.instructions, user.ownership) == (b"&one\n", Ownership.UID)


def test_alias_has_catchalls_too(world: World) -> None:
    world.insert("alias", ("alias", "@", "one", ""))
    assert said(world, "nobody-x") == b"&one\n"


def test_rows_of_a_user_of_users_cdb_count(world: World) -> None:
    user = User(
        name=b"Carl",
        uid=1,
        gid=1,
        home=b"/c",
        dash=b"-",
        ext=b"List",
        ownership=Ownership.TRUSTED,
    )
    assert user_of(world.instructions(user)) == user
    world.insert("alias", ("carl", "list", "one", "far.example"))
    assert user_of(world.instructions(user)).instructions == b"&one@far.example\n"
    world.insert("alias", ("carl", "list", "", ""))
    assert "blank alias_username" in trouble_of(world.instructions(user))


@pytest.mark.parametrize(
    ("row", "want"),
    [
        (("|", "preline procmail"), Program(b"preline procmail")),
        (("|", " exit 0"), Program(b" exit 0")),
        ((".", "/Maildir/"), Maildir(b"./Maildir/")),
        ((".", "/Mailbox"), Mbox(b"./Mailbox")),
        (("/", "home/iain/test/"), Maildir(b"/home/iain/test/")),
        (("/", "home/iain/Mailbox"), Mbox(b"/home/iain/Mailbox")),
        (("ann", ""), Forward(b"ann")),
        (("ann", "far.example"), Forward(b"ann@far.example")),
        (("ann@far.example", ""), Forward(b"ann@far.example")),
        (("&ann", "far.example"), Forward(b"ann@far.example")),
        (("#ann", "far.example"), Forward(b"#ann@far.example")),
        (("+list", ""), Forward(b"+list")),
    ],
)
def test_row_as_an_instruction(joe: World, row: tuple[str, str], want: object) -> None:
    joe.insert("alias", ("joe", "", *row))
    content = said(joe, "joe")
    assert content is not None
    assert list(parse(content, forward_only=False)) == [want]


def test_several_rows_have_a_stable_order(joe: World) -> None:
    rows = [
        ("ann", "b.example"),
        ("|", "two"),
        (".", "/Maildir/"),
        ("ann", "a.example"),
        ("/", "box"),
        ("|", "one"),
        ("ann", "a.example"),
    ]
    for row in rows:
        joe.insert("alias", ("joe", "", *row))
    assert said(joe, "joe") == (
        b"|one\n|two\n./Maildir/\n/box\n&ann@a.example\n&ann@b.example\n"
    )


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("", ""), "blank alias_username"),
        (("", "far.example"), "blank alias_username"),
        ((" ", "far.example"), "blank alias_username"),
        (("|", ""), "'|' with a blank alias_host"),
        ((".", " "), "'.' with a blank alias_host"),
        (("|cmd", ""), "only '|' belongs into alias_username"),
        (("/home/box", ""), "only '/' belongs into alias_username"),
        (("./Maildir/", ""), "only '.' belongs into alias_username"),
        (("&", "far.example"), "no address after '&'"),
        (("a\n|cmd", "far.example"), "a line end in"),
        (("a", "far.example\n|cmd"), "a line end in"),
        (("a\0b", ""), "a line end in"),
    ],
)
def test_alias_row_that_cannot_be_meant_defers(
    joe: World, row: tuple[str, str], problem: str
) -> None:
    joe.insert("alias", ("joe", "", *row), ("joe", "", "good", ""))
    text = trouble_of(joe.user("joe"))
    assert text.startswith("MySQL misconfiguration: alias rows ('joe', ''): ")
    assert problem in text


def test_bad_row_that_does_not_decide_does_not_matter(joe: World) -> None:
    joe.insert("alias", ("joe", "", "", ""), ("joe", "x", "good", ""))
    assert said(joe, "joe-x") == b"&good\n"


def test_list_that_does_not_fit_defers(joe: World) -> None:
    rows = [("joe", "", f"member{n}", "company.example") for n in range(2000)]
    joe.insert("alias", *rows)
    text = trouble_of(joe.user("joe"))
    assert text.endswith(f"a list of more than {INSTRUCTIONS_MAX} bytes")
