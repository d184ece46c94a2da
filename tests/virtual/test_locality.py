"""Locality: the order of the rules, one test for each."""

from __future__ import annotations

import pytest

from qsend.core.errors import TempFail
from qsend.core.lookups import Listing, Stored
from qsend.core.model import Account, Channel
from qsend.core.rewrite import Rules
from qsend.core.sqllocality import Unlisted, ask_locality, settle
from tests.sqlworld import OPTIONS, World, trouble_of

LOCAL, REMOTE = Channel.LOCAL, Channel.REMOTE


@pytest.fixture
def replaced(world: World) -> World:
    """`here.example` is local, and envnoathost is another host."""
    world.control(locals=frozenset({b"here.example"}), envnoathost=b"there.example")
    return world


def test_no_row_means_files(world: World) -> None:
    assert world.locality("joe@far.example").answer is Listing.NONE
    assert world.route("joe@far.example") == (REMOTE, b"joe@far.example")
    assert world.route("joe@me.example") == (LOCAL, b"joe@me.example")


def test_no_row_means_virtualdomains(world: World) -> None:
    world.virtualdomains[b"v.example"] = b"prefix"
    want = (LOCAL, b"prefix-joe@v.example")
    assert world.route("joe@v.example") == want


def test_local_domain_asks_mailbox_first(replaced: World) -> None:
    replaced.mailbox("joe")
    replaced.insert("virtual", ("other", "", "joe", "here.example"))
    assert replaced.route("joe@here.example") == (LOCAL, b"joe@here.example")


def test_local_domain_asks_mailbox_for_the_whole_local_part(replaced: World) -> None:
    replaced.mailbox("joe")
    replaced.insert("virtual", ("other", "", "joe-list", "here.example"))
    assert replaced.route("joe-list@here.example") == (LOCAL, b"other@here.example")


def test_local_domain_then_asks_virtual_exact_then_catchall(replaced: World) -> None:
    replaced.insert(
        "virtual",
        ("all", "", "", "here.example"),
        ("one", "", "joe", "here.example"),
        ("not", "", "joe", "there.example"),
    )
    assert replaced.route("joe@here.example") == (LOCAL, b"one@here.example")
    assert replaced.route("ann@here.example") == (LOCAL, b"all@here.example")


def test_virtual_catchall_beats_accounts_at_a_local_domain(replaced: World) -> None:
    replaced.passwd[b"joe"] = Account(uid=1001, gid=1001)
    replaced.insert("virtual", ("all", "", "", "here.example"))
    assert replaced.route("joe@here.example") == (LOCAL, b"all@here.example")


@pytest.mark.parametrize("local", ["joe", "joe-list", "Joe-List-x"])
def test_real_users_and_extensions_come_before_envnoathost(
    replaced: World, local: str
) -> None:
    replaced.passwd[b"joe"] = Account(uid=1001, gid=1001)
    replaced.insert("virtual", ("all", "", "", "there.example"))
    want = (LOCAL, f"{local}@here.example".encode())
    assert replaced.route(f"{local}@here.example") == want


def test_extensions_of_mailbox_users_come_before_envnoathost(replaced: World) -> None:
    replaced.mailbox("joe")
    replaced.insert("virtual", ("all", "", "", "there.example"))
    want = (LOCAL, b"joe-list@here.example")
    assert replaced.route("joe-list@here.example") == want
    assert replaced.asked == [], "the database answered"


def test_local_domain_is_replaced_by_envnoathost_exact_then_catchall(
    replaced: World,
) -> None:
    replaced.insert(
        "virtual",
        ("one", "x", "joe", "there.example"),
        ("all", "", "", "there.example"),
    )
    assert replaced.route("joe@here.example") == (LOCAL, b"one-x@there.example")
    assert replaced.route("ann@here.example") == (LOCAL, b"all@there.example")


def test_then_virtualdomains_is_asked_for_the_replaced_address(replaced: World) -> None:
    replaced.virtualdomains[b"there.example"] = b"prefix"
    want = (LOCAL, b"prefix-joe@there.example")
    assert replaced.route("joe@here.example") == want


def test_else_the_address_is_local_as_it_was(replaced: World) -> None:
    assert replaced.locality("joe@here.example").answer is Listing.NONE
    assert replaced.route("joe@here.example") == (LOCAL, b"joe@here.example")


def test_exception_in_virtualdomains_leaves_local_mail_local(replaced: World) -> None:
    replaced.virtualdomains |= {b"there.example": b"", b"": b"all"}
    assert replaced.route("joe@here.example") == (LOCAL, b"joe@here.example")


def test_rows_of_a_local_domain_do_not_make_others_fail(replaced: World) -> None:
    replaced.insert("virtual", ("one", "", "joe", "here.example"))
    assert replaced.route("ann@here.example") == (LOCAL, b"ann@here.example")


def test_other_domain_never_asks_mailbox(world: World) -> None:
    world.mailbox("joe")
    assert world.route("joe@far.example") == (REMOTE, b"joe@far.example")
    ask = ask_locality(b"joe@far.example", world.options)
    assert {part.query for part in ask.parts} == {"virtual", "virtualhost"}


def test_other_domain_is_not_replaced(world: World) -> None:
    world.insert("virtual", ("all", "", "", "me.example"))
    assert world.route("joe@far.example") == (REMOTE, b"joe@far.example")


def test_database_comes_before_virtualdomains(world: World) -> None:
    world.virtualdomains[b"v.example"] = b"prefix"
    world.insert("virtual", ("one", "", "joe", "v.example"))
    assert world.route("joe@v.example") == (LOCAL, b"one@v.example")


def test_host_with_rows_falls_to_virtualdomains(world: World) -> None:
    world.virtualdomains[b"v.example"] = b"prefix"
    world.insert("virtual", ("one", "", "joe", "v.example"))
    assert world.route("ann@v.example") == (LOCAL, b"prefix-ann@v.example")


def test_host_with_rows_and_no_match_fails_for_good(world: World) -> None:
    world.insert("virtual", ("one", "", "joe", "v.example"))
    assert world.locality("ann@v.example").answer is Listing.HOST
    assert world.route("ann@v.example") == Unlisted()
    assert world.route("ann@sub.v.example") == (REMOTE, b"ann@sub.v.example")


def test_host_with_rows_never_goes_remote_by_an_exception(world: World) -> None:
    world.virtualdomains |= {b"v.example": b"", b"ann@v.example": b""}
    world.insert("virtual", ("one", "", "joe", "v.example"))
    assert world.route("ann@v.example") == Unlisted()


def test_names_are_compared_in_lower_case(world: World) -> None:
    world.insert("virtual", ("one", "@", "joe", "v.example"))
    want = Stored(address=b"one-JOE@V.Example")
    assert world.locality("JOE@V.Example").answer == want


def test_host_after_replacement_is_stored(replaced: World) -> None:
    replaced.insert("virtual", ("one", "", "joe", "there.example"))
    want = Stored(address=b"one@there.example")
    assert replaced.locality("joe@HERE.example").answer == want


@pytest.mark.parametrize(
    ("ext", "stored"),
    [
        ("", b"one@v.example"),
        ("x", b"one-x@v.example"),
        ("x-y", b"one-x-y@v.example"),
        ("@", b"one-any.body@v.example"),
    ],
)
def test_ext_is_appended(world: World, ext: str, stored: bytes) -> None:
    world.insert("virtual", ("one", ext, "", "v.example"))
    assert world.route("any.body@v.example") == (LOCAL, stored)


def test_ext_at_sign_appends_also_what_an_explicit_row_matched(world: World) -> None:
    world.insert("virtual", ("one", "@", "joe", "v.example"))
    assert world.route("joe@v.example") == (LOCAL, b"one-joe@v.example")


def test_ext_at_sign_appends_nothing_to_an_empty_local_part(world: World) -> None:
    world.insert("virtual", ("one", "@", "", "v.example"))
    assert world.route("@v.example") == (LOCAL, b"one@v.example")


def test_user_names_may_be_long_and_hold_an_at_sign(world: World) -> None:
    name = f"{'long' * 50}-name@customer.example"
    world.insert("virtual", (name, "", "joe", "v.example"))
    assert world.route("joe@v.example") == (LOCAL, f"{name}@v.example".encode())


def test_at_sign_in_the_local_part_is_part_of_it(world: World) -> None:
    world.insert("virtual", ("one", "", "joe@x", "v.example"))
    assert world.route("joe@x@v.example") == (LOCAL, b"one@v.example")


@pytest.mark.parametrize("local", ["jo\xff", "j'o\"\\", "%", "j_e", "joe ", "\xc3\xa9"])
def test_any_bytes_are_asked_for_and_mean_themselves(world: World, local: str) -> None:
    world.insert("virtual", ("one", "", "joe", "v.example"))
    assert world.route(f"{local}@v.example") == Unlisted()


def test_whois_is_told_the_steps(replaced: World) -> None:
    replaced.insert("virtual", ("one", "x", "joe", "there.example"))
    told = " / ".join(replaced.locality("joe@here.example").steps)
    assert told == (
        "mailbox has no 'joe' / virtual has no row for 'joe@here.example'"
        " / the domain becomes 'there.example'"
        " / virtual row ('one', 'x', 'joe', 'there.example') matches"
    )


@pytest.mark.parametrize("ext", ["", "x"])
def test_virtual_row_without_username_defers(world: World, ext: str) -> None:
    world.insert("virtual", ("", ext, "joe", "v.example"))
    text = trouble_of(world.locality("joe@v.example"))
    assert text == (
        f"MySQL misconfiguration: virtual row ('', '{ext}', 'joe', 'v.example')"
        " has no username"
    )


@pytest.mark.parametrize("row", [("one\nx", ""), ("one", "x\ny"), ("one", "x\0")])
def test_virtual_row_with_a_line_end_defers(world: World, row: tuple[str, str]) -> None:
    world.insert("virtual", (*row, "joe", "v.example"))
    text = trouble_of(world.locality("joe@v.example"))
    assert text.startswith("MySQL misconfiguration: ")


def test_unanswered_account_question_is_trouble(replaced: World) -> None:
    judged_with: list[bytes] = []

    def unknown(local: bytes) -> bool:
        judged_with.append(local)
        raise TempFail("passwd does not answer")

    replaced._is_account = unknown  # type: ignore[method-assign] # what a machine does
    text = trouble_of(replaced.locality("joe@here.example"))
    assert (text, judged_with) == ("passwd does not answer", [b"joe"])


def test_settle_agrees_with_the_files_without_rows() -> None:
    rules = Rules(envnoathost=b"me.example", locals=OPTIONS.locals)
    assert settle(b"a@far.example", Listing.NONE, rules) == (REMOTE, b"a@far.example")
    assert settle(b"a@Me.Example", Listing.NONE, rules) == (LOCAL, b"a@Me.Example")
    stored = Stored(address=b"b@v.example")
    assert settle(b"a@v.example", stored, rules) == (LOCAL, b"b@v.example")
