"""Which TLS a destination's sessions owe, and whose certificate is good for it."""

from __future__ import annotations

import pytest

from qsend.core.tlspolicy import Demand, Level, Login, Rule, demand, is_named

POLICIES = {
    b"a.example": Rule(level=Level.NONE),
    b".example": Rule(level=Level.ENCRYPT),
    b"192.0.2.1": Rule(level=Level.VERIFY),
    b"::1": Rule(level=Level.VERIFY),
    b"own.test": Rule(level=Level.VERIFY, names=(b".mx.test", b"other.test")),
    b"plain.test": Rule(level=Level.VERIFY),
}


@pytest.mark.parametrize(
    ("destination", "level", "names"),
    [
        (b"a.example", Level.NONE, ()),
        (b"A.Example", Level.NONE, ()),
        (b"b.a.example", Level.ENCRYPT, ()),
        (b"example", Level.MAY, ()),
        (b"other.net", Level.MAY, ()),
        (b"192.0.2.1", Level.VERIFY, (b"192.0.2.1",)),
        (b"[192.0.2.1]", Level.VERIFY, (b"192.0.2.1",)),
        (b"[IPv6:::1]", Level.VERIFY, (b"::1",)),
        (b"plain.test", Level.VERIFY, (b"plain.test", b".plain.test")),
        (b"own.test", Level.VERIFY, (b".mx.test", b"other.test")),
    ],
)
def test_line_of_a_destination(
    destination: bytes, level: Level, names: tuple[bytes, ...]
) -> None:
    assert demand(destination, POLICIES) == Demand(level=level, names=names)


def test_default_line_is_for_all_others() -> None:
    policies = {**POLICIES, b"": Rule(level=Level.VERIFY)}
    assert demand(b"other.net", policies).level is Level.VERIFY
    assert demand(b"a.example", policies).level is Level.NONE


@pytest.mark.parametrize("level", Level)
def test_login_raises_may_to_encrypt_and_nothing_else(level: Level) -> None:
    login = Login(user=b"u", password=b"hush")
    got = demand(b"relay.test", {b"relay.test": Rule(level=level)}, login)
    assert got.level is (Level.ENCRYPT if level is Level.MAY else level)
    assert got.login is login
    assert demand(b"relay.test", {}, login).level is Level.ENCRYPT
    assert "hush" not in repr(got)


DNS, IP = "DNS", "IP Address"


@pytest.mark.parametrize(
    ("found", "wanted", "want"),
    [
        ((DNS, "mx.example.org"), b"mx.example.org", True),
        ((DNS, "MX.Example.org."), b"mx.example.org", True),
        ((DNS, "mx.example.org"), b"example.org", False),
        ((DNS, "mx.example.org"), b".example.org", True),
        ((DNS, "example.org"), b".example.org", False),
        ((DNS, "evilexample.org"), b".example.org", False),
        ((DNS, ".example.org"), b".example.org", False),
        ((DNS, "*.example.org"), b".example.org", True),
        ((DNS, "*.example.org"), b"mx.example.org", True),
        ((DNS, "*.example.org"), b"a.mx.example.org", False),
        ((DNS, "*.example.org"), b"example.org", False),
        ((DNS, "*.org"), b"example.org", False),
        ((DNS, "*"), b"example", False),
        ((DNS, "m*.example.org"), b"mx.example.org", False),
        ((DNS, "mx.example.org\0.evil.test"), b"mx.example.org", False),
        ((DNS, ""), b"mx.example.org", False),
        ((DNS, "192.0.2.1"), b"192.0.2.1", False),
        ((IP, "192.0.2.1"), b"192.0.2.1", True),
        ((IP, "192.0.2.1"), b"192.0.2.2", False),
        ((IP, "0:0:0:0:0:0:0:1"), b"::1", True),
        ((IP, "what"), b"what", False),
        ((IP, "mx.example.org"), b"mx.example.org", False),
        (("URI", "mx.example.org"), b"mx.example.org", False),
        (("email", "mx.example.org"), b"mx.example.org", False),
    ],
)
def test_names_of_a_certificate(
    found: tuple[str, str], wanted: bytes, want: bool
) -> None:
    others = [(DNS, "other.test"), (IP, "198.51.100.1")]
    assert is_named([*others, found], [b"x.test", wanted]) is want


def test_without_names_nothing_is_named() -> None:
    assert not is_named([], [b"a"])
    assert not is_named([(DNS, "a")], [])
