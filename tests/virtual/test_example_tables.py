"""The tables that the documentation of qmail/MySQL shows, and what it says of them."""

from __future__ import annotations

import pytest

from qsend.core.dotqmail import Forward, Maildir, Mbox, Program, parse
from qsend.core.lookups import Listing, Stored
from qsend.core.model import Account, Channel, Ownership
from qsend.core.sqllocality import Unlisted
from qsend.core.sqllogin import MailboxLogin, PasswordType
from tests.sqlworld import World, trouble_of, user_of

MAILBOX = (
    ("dmp", 800, 100, "/mail/dmp", "flibble", "Password", "N"),
    ("iain", 101, 31337, "/home/iain", "5d2e19393cc5ef67", "MySQL-Password", "N"),
)
VIRTUAL = (
    ("dmp", "", "diane.p", "tterson.net"),
    ("iain", "", "iain.p", "tterson.net"),
    ("iain", "legacy", "geocities", "babasse.com"),
    ("iain", "@", "", "iain.cx"),
    ("hancocaj", "", "", "ncock.net"),
)
ALIAS = (
    ("dmp", "", "dmp", "nigelj.force9.co.uk"),
    ("iain", "test", "/", "home/iain/test/"),
    ("iain", "", "|", "preline procmail"),
    ("njp", "spam", ".", "/Spam/"),
    ("alias", "bogus", "iain", ""),
)
CUSTOMERS = (
    ("alias", "customers", "customer1", "company1.com"),
    ("alias", "customers", "customer2", "company2.com.hk"),
    ("alias", "customers", "customer3", "company3.co.uk"),
    ("alias", "customers", "customer4", "company4.fr"),
)


def steps(content: bytes | None) -> list[object]:
    """What a delivery does with instructions."""
    assert content is not None
    return list(parse(content, forward_only=False))


def test_mailbox_table_gives_uid_gid_and_home(world: World) -> None:
    world.insert("mailbox", *MAILBOX)
    dmp = user_of(world.user("dmp"))
    assert (dmp.name, dmp.uid, dmp.gid, dmp.home) == (b"dmp", 800, 100, b"/mail/dmp")
    assert (dmp.dash, dmp.ext, dmp.ownership) == (b"", b"", Ownership.UID_GID)
    assert dmp.instructions is None


def test_real_users_may_stand_in_the_mailbox_table(world: World) -> None:
    world.insert("mailbox", *MAILBOX)
    world.passwd[b"iain"] = Account(uid=101, gid=31337)
    iain = user_of(world.user("iain"))
    assert (iain.uid, iain.gid, iain.home) == (101, 31337, b"/home/iain")
    assert world.asked == [], "the row answers, passwd is not asked"


@pytest.mark.parametrize(
    ("name", "kind", "password"),
    [
        ("dmp", PasswordType.PLAIN, b"flibble"),
        ("iain", PasswordType.MYSQL, b"5d2e19393cc5ef67"),
    ],
)
def test_password_types_of_the_example(
    world: World, name: str, kind: PasswordType, password: bytes
) -> None:
    world.insert("mailbox", *MAILBOX)
    login = world.login(name).answer
    assert isinstance(login, MailboxLogin)
    assert (login.kind, login.password, login.suspended) == (kind, password, False)


@pytest.mark.parametrize(
    ("address", "stored"),
    [
        ("diane.p@tterson.net", b"dmp@tterson.net"),
        ("iain.p@tterson.net", b"iain@tterson.net"),
        ("geocities@babasse.com", b"iain-legacy@babasse.com"),
        ("xxx@iain.cx", b"iain-xxx@iain.cx"),
        ("yyy@iain.cx", b"iain-yyy@iain.cx"),
        ("xxx@ncock.net", b"hancocaj@ncock.net"),
        ("miss.h@ncock.net", b"hancocaj@ncock.net"),
    ],
)
def test_virtual_table_of_the_example(
    world: World, address: str, stored: bytes
) -> None:
    world.insert("virtual", *VIRTUAL)
    assert world.route(address) == (Channel.LOCAL, stored)


def test_explicit_matches_override_catchalls(world: World) -> None:
    world.insert("virtual", *VIRTUAL, ("hancocah", "", "miss.h", "ncock.net"))
    assert world.route("miss.h@ncock.net") == (Channel.LOCAL, b"hancocah@ncock.net")
    assert world.route("other@ncock.net") == (Channel.LOCAL, b"hancocaj@ncock.net")


def test_without_catchall_and_explicit_match_mail_bounces(world: World) -> None:
    world.insert("virtual", *VIRTUAL)
    assert world.route("bogus.p@tterson.net") == Unlisted()


def test_mail_for_dmp_is_forwarded(world: World) -> None:
    world.insert("mailbox", *MAILBOX)
    world.insert("alias", *ALIAS)
    got = steps(user_of(world.user("dmp")).instructions)
    assert got == [Forward(b"dmp@nigelj.force9.co.uk")]


def test_mail_for_iain_is_piped_through_preline(world: World) -> None:
    world.insert("mailbox", *MAILBOX)
    world.insert("alias", *ALIAS)
    got = steps(user_of(world.user("iain")).instructions)
    assert got == [Program(b"preline procmail")]


def test_mail_for_iain_test_goes_to_that_maildir(world: World) -> None:
    world.insert("mailbox", *MAILBOX)
    world.insert("alias", *ALIAS)
    user = user_of(world.user("iain-test"))
    assert (user.name, user.dash, user.ext) == (b"iain", b"-", b"test")
    assert steps(user.instructions) == [Maildir(b"/home/iain/test/")]


def test_mail_for_njp_spam_goes_to_spam_in_his_home(world: World) -> None:
    world.insert("alias", *ALIAS)
    world.passwd[b"njp"] = Account(uid=1004, gid=1004)
    user = user_of(world.user("njp-spam"))
    assert (user.uid, user.ownership) == (1004, Ownership.UID)
    assert steps(user.instructions) == [Maildir(b"./Spam/")]


def test_alias_rows_catch_mail_for_nonexistent_accounts(world: World) -> None:
    world.insert("alias", *ALIAS)
    user = user_of(world.user("bogus"))
    assert (user.name, user.ext) == (b"alias", b"bogus")
    assert steps(user.instructions) == [Forward(b"iain")]


def test_several_rows_make_a_mailing_list(world: World) -> None:
    world.insert("alias", *reversed(CUSTOMERS))
    assert steps(user_of(world.user("customers")).instructions) == [
        Forward(b"customer1@company1.com"),
        Forward(b"customer2@company2.com.hk"),
        Forward(b"customer3@company3.co.uk"),
        Forward(b"customer4@company4.fr"),
    ]


def test_aliased_users_must_exist_somewhere(world: World) -> None:
    world.insert("alias", ("offsite", "", "someone", "hotmail.example"))
    user = user_of(world.user("offsite"))
    assert (user.name, user.instructions) == (b"alias", None)
    world.mailbox("offsite")
    user = user_of(world.user("offsite"))
    assert steps(user.instructions) == [Forward(b"someone@hotmail.example")]


def test_dot_and_maildir_is_a_no_op(world: World) -> None:
    world.mailbox("username")
    world.insert("alias", ("username", "", ".", "/Maildir/"))
    got = steps(user_of(world.user("username")).instructions)
    assert got == [Maildir(b"./Maildir/")]


def test_mailbox_delivery_for_one_user(world: World) -> None:
    world.insert("mailbox", MAILBOX[1])
    world.insert("alias", ("iain", "", "/", "home/iain/Mailbox"))
    got = steps(user_of(world.user("iain")).instructions)
    assert got == [Mbox(b"/home/iain/Mailbox")]


def test_example_at_local_domain_ends_at_envnoathost(world: World) -> None:
    world.control(locals=frozenset({b"iain.cx"}), envnoathost=b"babasse.com")
    world.insert("virtual", ("iain", "", "", "babasse.com"))
    want = (Channel.LOCAL, b"iain@babasse.com")
    assert world.route("example@iain.cx") == want


def test_example_at_domain_not_in_locals_skips_mailbox(world: World) -> None:
    world.control(envnoathost=b"babasse.com")
    world.mailbox("example")
    world.insert("virtual", ("iain", "", "", "babasse.com"))
    assert world.locality("example@iain.cx").answer is Listing.NONE
    assert world.route("example@iain.cx") == (Channel.REMOTE, b"example@iain.cx")
    world.insert("virtual", VIRTUAL[3])
    want = Stored(address=b"iain-example@iain.cx")
    assert world.locality("example@iain.cx").answer == want


def test_user_names_with_dashes_and_extensions(world: World) -> None:
    world.insert(
        "mailbox",
        ("iain", 800, 100, "/home/mail/iain", "****", "Password", "N"),
        ("iain-sanity", 800, 100, "/home/mail/sanity", "****", "Password", "N"),
    )
    world.insert("alias", ("iain", "slowlaris", ".", "/Maildir/"))
    iain, sanity, slowlaris = (
        user_of(world.user(name)) for name in ("iain", "iain-sanity", "iain-slowlaris")
    )
    assert (iain.home, iain.dash, iain.ext) == (b"/home/mail/iain", b"", b"")
    assert (sanity.name, sanity.home) == (b"iain-sanity", b"/home/mail/sanity")
    assert (sanity.dash, sanity.ext) == (b"", b"")
    assert (slowlaris.home, slowlaris.ext) == (b"/home/mail/iain", b"slowlaris")
    assert steps(slowlaris.instructions) == [Maildir(b"./Maildir/")]
    assert iain.instructions is sanity.instructions is None


def test_virtual_catchall_with_catchall_alias(world: World) -> None:
    world.mailbox("virtual")
    world.insert("virtual", ("virtual", "@", "", "virtual.com"))
    world.insert("alias", ("virtual", "@", ".", "/Maildir/"))
    want = (Channel.LOCAL, b"virtual-any.body@virtual.com")
    assert world.route("any.body@virtual.com") == want
    user = user_of(world.user("virtual-any.body"))
    assert (user.name, user.ext) == (b"virtual", b"any.body")
    assert steps(user.instructions) == [Maildir(b"./Maildir/")]


def test_row_that_is_blank_but_for_its_user_defers(world: World) -> None:
    world.mailbox("user")
    world.insert("alias", ("user", "", "", ""))
    for local in ("user", "user-any"):
        text = trouble_of(world.user(local))
        assert text.startswith("MySQL misconfiguration: ")
        assert "blank alias_username" in text


def test_only_listed_addresses_of_a_virtual_domain_are_taken(world: World) -> None:
    world.insert("virtual", ("sales", "", "sales", "sillydomain.com"))
    want = (Channel.LOCAL, b"sales@sillydomain.com")
    assert world.route("sales@sillydomain.com") == want
    assert world.route("support@sillydomain.com") == Unlisted()


def test_forwarding_off_site_with_a_real_forward_user(world: World) -> None:
    world.mailbox("forward")
    world.insert("virtual", ("forward", "", "user", "virtual.com"))
    world.insert("alias", ("forward", "", "address", "external.com"))
    want = (Channel.LOCAL, b"forward@virtual.com")
    assert world.route("user@virtual.com") == want
    got = steps(user_of(world.user("forward")).instructions)
    assert got == [Forward(b"address@external.com")]


def test_magic_forwarding_sends_on_to_ext(world: World) -> None:
    world.control(magicforwarding=True)
    world.insert(
        "virtual", ("forward", "popaccount@hotmail.com", "user", "virtual.com")
    )
    stored = b"forward-popaccount@hotmail.com@virtual.com"
    assert world.route("user@virtual.com") == (Channel.LOCAL, stored)
    user = user_of(world.user("forward-popaccount@hotmail.com"))
    assert user.name == b"alias"
    assert steps(user.instructions) == [Forward(b"popaccount@hotmail.com")]


def test_funky_catchall_is_a_percent_sign(world: World) -> None:
    world.control(patterns=True)
    world.insert("virtual", ("hancocaj", "", "%", "ncock.net"))
    want = (Channel.LOCAL, b"hancocaj@ncock.net")
    assert world.route("xxx@ncock.net") == want
