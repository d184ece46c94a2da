"""Whose mail is taken."""

from __future__ import annotations

import pytest

from qsend.core.relay import (
    BAD_SENDER,
    HOST_MAX,
    NOT_LISTED,
    RECIP_MAX,
    TOO_LONG,
    TROUBLE,
    Refused,
    RelayRules,
    Taken,
    Unlisted,
    host_keys,
    is_bad_sender,
    judge_recipient,
    relay_warning,
    replace_literal,
    settle,
)
from qsend.core.rewrite import Rules
from qsend.core.users import Trouble

HERE = Rules(envnoathost=b"here.example", percenthack=frozenset({b"hack.example"}))
RULES = RelayRules(
    rewriting=HERE,
    rcpthosts=frozenset({b"here.example", b".sub.example", b"hack.example"}),
    badmailfrom=frozenset({b"spam@bad.example", b"@worse.example", b"joe", b"@"}),
    localiphost=b"here.example",
)
OPEN = RelayRules(rewriting=HERE)
DOWN = Trouble(text=b"down")


def unlisted(recip: bytes) -> Unlisted:
    return Unlisted(recip=recip, host=recip.rpartition(b"@")[2].lower())


@pytest.mark.parametrize(
    ("recip", "host"),
    [
        (b"joe@here.example", None),
        (b"joe@HERE.Example", None),
        (b"joe@x.sub.example", None),
        (b"joe@x.y.sub.example", None),
        (b"joe", None),
        (b"", None),
        (b"a@b@here.example", None),
        (b"joe@sub.example", b"sub.example"),
        (b"joe@x.here.example", b"x.here.example"),
        (b"joe@nothere.example", b"nothere.example"),
        (b"joe@xsub.example", b"xsub.example"),
        (b"joe@", b""),
        (b"joe@here.example.", b"here.example."),
        (b"here.example@evil.example", b"evil.example"),
        # What the queue manager would make of it counts.
        (b"joe%evil.example@hack.example", b"evil.example"),
        (b"joe%here.example@hack.example", None),
        (b"a%evil.example%hack.example@hack.example", b"evil.example"),
        (b"joe%evil.example@here.example", None),
        (b"joe@hack.example", None),
    ],
)
def test_rcpthosts(recip: bytes, host: bytes | None) -> None:
    want = Taken(recip=recip) if host is None else Unlisted(recip=recip, host=host)
    assert judge_recipient(recip, RULES, None) == want


def test_percenthack_of_what_has_no_host_is_no_way_out() -> None:
    hack = Rules(envnoathost=b"here", percenthack=frozenset({b"here"}))
    rules = RelayRules(rewriting=hack, rcpthosts=frozenset({b"here"}))
    found = judge_recipient(b"joe%evil.example", rules, None)
    assert found == Unlisted(recip=b"joe%evil.example", host=b"evil.example")


@pytest.mark.parametrize("rcpthosts", [None, frozenset[bytes]()])
def test_missing_or_empty_list_is_no_open_relay(
    rcpthosts: frozenset[bytes] | None,
) -> None:
    rules = RelayRules(rewriting=HERE, rcpthosts=rcpthosts)
    found = judge_recipient(b"joe@here.example", rules, None)
    assert found == unlisted(b"joe@here.example")
    assert isinstance(found, Unlisted)
    assert settle(found, False, False) == Refused(text=NOT_LISTED, is_permanent=True)
    assert judge_recipient(b"joe@x", rules, b"") == Taken(recip=b"joe@x")
    for more, database, warns in [
        (False, False, True),
        (True, False, False),
        (False, True, False),
    ]:
        warning = relay_warning(rules, has_more=more, has_database=database)
        assert (warning is not None) == warns
    assert relay_warning(RULES, has_more=False, has_database=False) is None


def test_relayclient_passes_everything_and_adds_its_suffix() -> None:
    assert judge_recipient(b"joe@evil", RULES, b"") == Taken(recip=b"joe@evil")
    assert judge_recipient(b"a", RULES, b"@fix.me") == Taken(recip=b"a@fix.me")
    long = b"x" * (RECIP_MAX - 7)
    assert isinstance(judge_recipient(long, RULES, b"@fix.me"), Taken)
    refused = Refused(text=TOO_LONG, is_permanent=True)
    assert judge_recipient(long + b"x", RULES, b"@fix.me") == refused


def test_host_longer_than_any_is_refused_at_once() -> None:
    refused = Refused(text=NOT_LISTED, is_permanent=True)
    recip = b"joe@" + b"." * (HOST_MAX + 1)
    assert judge_recipient(recip, RULES, None) == refused


@pytest.mark.parametrize(
    ("answers", "want"),
    [
        ((), Refused(text=NOT_LISTED, is_permanent=True)),
        ((False, False), Refused(text=NOT_LISTED, is_permanent=True)),
        ((False, True), Taken(recip=b"a@b")),
        ((DOWN, True), Taken(recip=b"a@b")),
        ((True, DOWN), Taken(recip=b"a@b")),
        ((False, DOWN), Refused(text=TROUBLE, is_permanent=False)),
    ],
)
def test_file_and_table_are_a_union_and_trouble_is_no_no(
    answers: tuple[bool | Trouble, ...], want: Taken | Refused
) -> None:
    assert settle(unlisted(b"a@b"), *answers) == want


def test_keys_of_a_host() -> None:
    assert host_keys(b"A.b.C") == [b"a.b.c", b".b.c", b".c"]
    assert host_keys(b".b") == [b".b"]
    assert host_keys(b"a.") == [b"a.", b"."]


@pytest.mark.parametrize(
    ("sender", "want"),
    [
        (b"spam@bad.example", True),
        (b"SPAM@BAD.example", True),
        (b"ham@bad.example", False),
        (b"any@worse.EXAMPLE", True),
        (b"any@x.worse.example", False),
        (b"joe", True),
        (b"", False),
        (b"x@", True),
    ],
)
def test_badmailfrom(sender: bytes, want: bool) -> None:
    assert is_bad_sender(sender, RULES) == want


@pytest.mark.parametrize(
    ("address", "want"),
    [
        (b"joe@[192.0.2.1]", b"joe@here.example"),
        (b"joe@[IPv6:2001:DB8::1]", b"joe@here.example"),
        (b"joe@[192.0.2.2]", b"joe@[192.0.2.2]"),
        (b"joe@192.0.2.1", b"joe@192.0.2.1"),
        (b"joe@[192.0.2.1", b"joe@[192.0.2.1"),
        (b"joe@[host]", b"joe@[host]"),
        (b"joe@[]", b"joe@[]"),
        (b"[192.0.2.1]", b"[192.0.2.1]"),
        (b"", b""),
    ],
)
def test_localiphost(address: bytes, want: bytes) -> None:
    own = {"192.0.2.1", "2001:db8::1"}
    assert replace_literal(address, RULES, own) == want
    assert replace_literal(address, OPEN, own) == address


def test_texts_carry_enhanced_codes() -> None:
    for text in (BAD_SENDER, NOT_LISTED, TROUBLE, TOO_LONG):
        assert text.endswith(")")
        assert "(#" in text
