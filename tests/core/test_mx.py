"""Routing decisions: routes, literals, order, own machine, null MX."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from qsend.core.errors import PermFail
from qsend.core.mx import (
    MX_MAX,
    Host,
    candidates,
    canonical,
    destination,
    is_null_mx,
    literal,
    order_targets,
    refuse_null_mx,
    relay_literal,
    route,
    shown,
)

ROUTES: Mapping[bytes, str | None] = {
    b"exact.example": "exact",
    b".a.b": None,
    b".b": "b",
    b"special.a.b": "special",
}


@pytest.mark.parametrize(
    ("domain", "want"),
    [
        (b"exact.example", "exact"),
        (b"EXACT.Example", "exact"),
        (b"x.exact.example", None),
        (b"x.a.b", None),
        (b"y.x.A.B", None),
        (b"special.a.b", "special"),
        (b"a.b", "b"),
        (b"x.c.b", "b"),
        (b"b", None),
        (b"", None),
        (b".b", "b"),
    ],
)
def test_route_takes_first_key_present(domain: bytes, want: str | None) -> None:
    assert route(domain, ROUTES) == want


@pytest.mark.parametrize(
    ("domain", "want"),
    [
        (b"x.a.b", None),
        (b"a.b", "relay"),
        (b"", "relay"),
        (b"[192.0.2.1]", "relay"),
    ],
)
def test_route_empty_key_takes_the_rest(domain: bytes, want: str | None) -> None:
    routes: dict[bytes, str | None] = {b".a.b": None, b"": "relay"}
    assert route(domain, routes) == want


@pytest.mark.parametrize(
    ("domain", "want"),
    [
        (b"192.0.2.1", "192.0.2.1"),
        (b"[192.0.2.1]", "192.0.2.1"),
        (b"[IPv6:2001:DB8:0::1]", "2001:db8::1"),
        (b"[ipv6:::1]", "::1"),
        (b"[IPv6:::ffff:192.0.2.1]", "192.0.2.1"),
        (b"[2001:db8::1]", None),
        (b"2001:db8::1", None),
        (b"IPv6:::1", None),
        (b"[IPv6:192.0.2.1]", None),
        (b"256.0.0.1", None),
        (b"1.2.3", None),
        (b"1.2.3.4.5", None),
        (b"[1.2.3.4", None),
        (b"1.2.3.4]", None),
        (b"[1.2.3.4]x", None),
        (b"[[1.2.3.4]]", None),
        (b"[]", None),
        (b"[", None),
        (b"]", None),
        (b"", None),
        (b"1.2.3.\xff", None),
        (b"example.com", None),
    ],
)
def test_literal_is_whole_domain_or_none(domain: bytes, want: str | None) -> None:
    assert literal(domain) == want


@pytest.mark.parametrize(
    ("relay", "want"),
    [
        (b"::1", "::1"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"fe80::1%eth0", "fe80::1%eth0"),
        (b"[127.0.0.1]", "127.0.0.1"),
        (b"127.0.0.1", "127.0.0.1"),
        (b"relay.example", None),
        (b"", None),
    ],
)
def test_relay_literal_takes_plain_ipv6(relay: bytes, want: str | None) -> None:
    assert relay_literal(relay) == want


def test_canonical_refuses_names() -> None:
    with pytest.raises(ValueError, match=r"example\.com"):
        canonical("example.com")


@pytest.mark.parametrize(
    ("args", "want"),
    [
        ((b"Example.COM",), b"example.com"),
        ((b"example.com", b"Relay", 2525), b"relay:2525"),
        ((b"example.com", b"relay", 0), b"relay:25"),
        ((b"relay:25",), b"@relay:25"),
        ((b"[IPv6:::1]",), b"@[ipv6:::1]"),
        ((b"",), b""),
    ],
)
def test_destination_key(args: tuple[bytes], want: bytes) -> None:
    assert destination(*args) == want


def test_shown_hides_odd_bytes() -> None:
    assert shown(b"a b\n\x7f\xff~!") == "a?b???~!"


def test_order_targets_sorts_by_preference_then_chance() -> None:
    records = [(20, b"c"), (10, b"a"), (10, b"b"), (5, b""), (30, b"d")]
    chance = iter([0.1, 0.9, 0.2, 0.5])
    assert order_targets(records, lambda: next(chance)) == [
        (10, b"b"),
        (10, b"a"),
        (20, b"c"),
        (30, b"d"),
    ]


def test_order_targets_keeps_the_best_of_too_many() -> None:
    records = [(n, b"h%d" % n) for n in range(MX_MAX + 10)]
    ordered = order_targets(reversed(records), itertools.count().__next__)
    assert ordered == records[:MX_MAX]


@pytest.mark.parametrize(
    ("records", "want"),
    [
        ([(0, b"")], True),
        ([(10, b"")], True),
        ([(0, b""), (10, b"mx")], False),
        ([(0, b"mx")], False),
        ([], False),
    ],
)
def test_null_mx_is_the_only_record(
    records: list[tuple[int, bytes]], want: bool
) -> None:
    assert is_null_mx(records) is want


def test_null_mx_refusal_names_the_domain_safely() -> None:
    assert str(refuse_null_mx(b"a\nb")).endswith("(#5.1.10)")
    assert "a?b" in str(refuse_null_mx(b"a\nb"))


def host(address: str, preference: int) -> Host:
    return Host(address=address, preference=preference, name=b"h")


OTHER, ME, THIRD = host("192.0.2.1", 10), host("192.0.2.9", 20), host("192.0.2.3", 30)
OWN = frozenset({"192.0.2.9", "fe80::9"})


@pytest.mark.parametrize(
    ("hosts", "want"),
    [
        ([OTHER, THIRD], [OTHER, THIRD]),
        ([OTHER, ME, THIRD], [OTHER]),
        ([OTHER, host("192.0.2.4", 20), ME], [OTHER]),
        ([OTHER, ME, host("192.0.2.9", 40)], [OTHER]),
        ([OTHER, host("fe80::9%eth0", 20), THIRD], [OTHER]),
    ],
)
def test_candidates_are_better_than_this_machine(
    hosts: list[Host], want: list[Host]
) -> None:
    assert candidates(b"d", hosts, OWN) == want


@pytest.mark.parametrize("hosts", [[ME], [ME, THIRD], [host("192.0.2.1", 20), ME]])
def test_candidates_none_better_is_failure(hosts: list[Host]) -> None:
    with pytest.raises(PermFail, match=r"\(#5\.4\.6\)$"):
        candidates(b"d", hosts, OWN)


def test_candidates_of_a_relay_may_be_this_machine() -> None:
    assert candidates(b"d", [ME], ()) == [ME]
