"""qsend virtual, alias and rcpthost: rows in a real MariaDB."""

from __future__ import annotations

import pytest

from tests.cli.adminhome import AdminHome


@pytest.fixture
def admin(admin_home: AdminHome) -> AdminHome:
    database = admin_home.database
    rows = [(name, 800, 100, f"/mail/{name}", "", "Password", "N") for name in USERS]
    database.insert("mailbox", *rows)
    return admin_home


USERS = ("dmp", "iain", "virtual")


def test_rows_of_virtual(admin: AdminHome) -> None:
    for words in (
        ("Diane.P@Tterson.Net", "dmp"),
        ("geocities@babasse.com", "iain", "--ext", "legacy"),
        ("@iain.cx", "iain", "--ext", "@"),
        ("sales@v.example", "alias", "--ext", "sales"),
    ):
        assert admin.run("virtual", "add", *words).code == 0
    assert {*admin.rows("virtual")} == {
        ("alias", "sales", "sales", "v.example"),
        ("dmp", "", "diane.p", "tterson.net"),
        ("iain", "legacy", "geocities", "babasse.com"),
        ("iain", "@", "", "iain.cx"),
    }
    found = admin.run("virtual", "list", "--user", "iain", "--json").facts
    assert [row["virtual_host"] for row in found] == ["babasse.com", "iain.cx"]
    assert admin.run("virtual", "list", "--host", "nowhere.example").code == 1
    assert admin.run("virtual", "remove", "@iain.cx").code == 0
    assert admin.run("virtual", "remove", "@iain.cx").code == 1
    assert len(admin.rows("virtual")) == 3


def test_virtual_host_that_nobody_may_send_to_is_noted(admin: AdminHome) -> None:
    done = admin.run("virtual", "add", "a@sub.v.example", "dmp")
    assert done.out.splitlines() == [
        "mail for a@sub.v.example goes to dmp",
        "note: sub.v.example is not in the rcpthosts table: unless control/rcpthosts"
        " has it, add it with `qsend rcpthost add sub.v.example`",
    ]
    admin.run("rcpthost", "add", ".v.example")
    done = admin.run("virtual", "add", "@sub.v.example", "iain", "--ext", "@")
    assert done.out == "mail for anybody@sub.v.example goes to iain-...\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("v.example", "dmp"), "expected USER@HOST"),
        (("a@", "dmp"), "the host is blank"),
        (("a@b c", "dmp"), "no name of a host"),
        (("a@v.example", ""), "the user is blank"),
        (("a@v.example", " "), "the user is blank"),
        (("a@v.example", "nobody-here"), "there is no user nobody-here"),
        (("a@v.example", "dmp-lists"), "say: dmp --ext lists"),
        (("a@v.example", "forward", "--ext", "x@y.example"), "no user forward"),
        (("a@here.example", "dmp"), "in control/locals"),
        (("%@v.example", "dmp"), "sqlpatterns is off"),
        (("a@v.example", "dmp", "--ext", "a\nb"), "not printable"),
    ],
)
def test_virtual_rows_that_are_refused(
    admin: AdminHome, words: tuple[str, ...], said: str
) -> None:
    done = admin.run("virtual", "add", *words)
    assert (done.code, said in done.err) == (100, True), done
    assert admin.rows("virtual") == []


def test_address_that_is_taken(admin: AdminHome) -> None:
    admin.run("virtual", "add", "a@v.example", "dmp")
    done = admin.run("virtual", "add", "A@v.example", "iain", "--force")
    assert done.code == 100
    assert "has a row for a@v.example already: it leads to dmp" in done.err


def test_magic_forwarding_rows(admin: AdminHome) -> None:
    admin.control("magicforwarding", "1\n")

    def add(address: str, target: str) -> str:
        words = (address, "forward", "--ext", target, "--force")
        done = admin.run("virtual", "add", *words)
        return done.err if done.code else ""

    assert "wants the address to send on to" in add("a@one.example", "nobody")
    assert "forwarded to itself" in add("a@one.example", "a@one.example")
    assert add("a@one.example", "b@two.example") == ""
    assert "forwarded twice" in add("b@two.example", "c@three.example")
    assert "forwarded twice" in add("z@one.example", "a@one.example")
    assert add("b@one.example", "b@two.example") == ""


def test_patterns_may_be_rows_when_they_are_on(admin: AdminHome) -> None:
    admin.control("sqlpatterns", "1\n")
    assert admin.run("virtual", "add", "sales-%@v.example", "dmp").code == 0


def test_rows_of_alias(admin: AdminHome) -> None:
    for words in (
        ("dmp", "dmp@nigelj.force9.co.uk"),
        ("iain", "--ext", "test", "/home/iain/test/"),
        ("Iain", "| preline procmail"),
        ("virtual", "--ext", "@", "./Maildir/"),
        ("alias", "--ext", "Bogus", "&iain"),
    ):
        done = admin.run("alias", "add", *words)
        assert (done.code, done.err) == (0, ""), done
    assert {*admin.rows("alias")} == {
        ("dmp", "", "dmp", "nigelj.force9.co.uk"),
        ("iain", "test", "/", "home/iain/test/"),
        ("iain", "", "|", " preline procmail"),
        ("virtual", "@", ".", "/Maildir/"),
        ("alias", "bogus", "iain", ""),
    }
    done = admin.run("alias", "add", "dmp", "./Maildir/")
    assert done.out.splitlines()[1].startswith("which is one of 2 instructions")
    facts = admin.run("alias", "list", "dmp", "--json").facts
    assert [row["alias_username"] for row in facts] == [".", "dmp"]
    assert admin.run("alias", "remove", "dmp", "./Maildir/").code == 0
    assert admin.run("alias", "remove", "dmp", "--ext", "x").code == 1
    assert admin.run("alias", "remove", "dmp").code == 0
    assert len(admin.rows("alias")) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dmp", ""), "blank alias_username"),
        (("dmp", "  "), "blank alias_username"),
        (("dmp", "|"), "with a blank alias_host"),
        (("dmp", "&"), "blank alias_username"),
        (("dmp", "@b.example"), "blank alias_username"),
        (("dmp", "# note"), "do not work"),
        (("dmp", "+list"), "do not work"),
        (("dmp", "a b"), "is no address"),
        (("dmp", "a\nb"), "not printable"),
        (("", "a@b.example"), "the user is blank"),
        (("dmp", "x" * 2050), "longer than 2048"),
        (("dmp", "dmp"), "is the address itself"),
        (("dmp", "DMP@here.example"), "is the address itself"),
        (("dmp", "--ext", "a", "dmp-a"), "is the address itself"),
        (("alias", "--ext", "x", "x"), "is the address itself"),
        (("alias", "iain"), "all mail that nobody else has"),
        (("nobody-here", "a@b.example"), "aliased users must exist"),
    ],
)
def test_alias_rows_that_are_refused(
    admin: AdminHome, words: tuple[str, ...], said: str
) -> None:
    done = admin.run("alias", "add", *words)
    assert (done.code, said in done.err) == (100, True), done
    assert admin.rows("alias") == []


def test_row_that_is_there_already(admin: AdminHome) -> None:
    assert admin.run("alias", "add", "dmp", "a@b.example").code == 0
    done = admin.run("alias", "add", "dmp", "a@b.example")
    assert (done.code, "has this row already" in done.err) == (100, True)


def test_rcpthosts(admin: AdminHome) -> None:
    done = admin.run("rcpthost", "add", "V.example", ".w.example")
    assert done.out == (
        "mail for v.example is accepted\nmail for .w.example is accepted\n"
    )
    assert admin.run("rcpthost", "add", "v.example").out.endswith("already\n")
    assert admin.rows("rcpthosts") == [(".w.example",), ("v.example",)]
    for wrong in ("", ".", "a@b", "a b", "a:b"):
        assert admin.run("rcpthost", "add", wrong).code == 100
    assert admin.run("rcpthost", "list", "--json").facts == [
        {"host": ".w.example"},
        {"host": "v.example"},
    ]
    done = admin.run("rcpthost", "remove", "v.example", "x.example")
    assert (done.code, done.out) == (1, "removed v.example\n")
    assert admin.run("rcpthost", "remove", ".w.example").code == 0
    assert admin.run("rcpthost", "list").code == 1


@pytest.mark.parametrize("command", ["user", "virtual", "alias", "rcpthost"])
def test_each_action_teaches(admin: AdminHome, command: str) -> None:
    assert "ACTION" in admin.bare(command, "--help").out
    for action in ("add", "remove", "list"):
        done = admin.bare(command, action, "--help")
        assert (done.code, done.err) == (0, "")
        assert f"usage: qsend {command} {action}" in done.out
        assert len(done.out.splitlines()) > 15
    assert admin.bare(command).code == 100
