"""Which rule is for a client."""

from __future__ import annotations

import pytest

from qsend.core.access import ALLOWED, Client, Rule, addresses, judge

NO_NETWORKS = {4: (), 6: ()}
DENY = Rule(is_allowed=False)


@pytest.mark.parametrize(
    ("client", "lengths", "want"),
    [
        (Client(address="1.2.3.4"), {}, b"1.2.3.4 1.2.3. 1.2. 1. ."),
        (
            Client(address="1.2.3.4", host=b"a.b.c", info=b"joe"),
            {},
            b"joe@1.2.3.4 joe@=a.b.c 1.2.3.4 =a.b.c 1.2.3. 1.2. 1. =.b.c =.c = .",
        ),
        (
            Client(address="1.2.3.4"),
            {4: (25, 24, 9, 8, 0), 6: (64,)},
            b"1.2.3.4 1.2.3.0/25 1.2.3. 1.2.3.0/24 1.2. 1.0.0.0/9 1. 1.0.0.0/8"
            b" 0.0.0.0/0 .",
        ),
        (
            Client(address="2001:db8::1", host=b"h", info=b"j"),
            {4: (8,), 6: (32, 10, 0)},
            b"j@2001:db8::1 j@=h 2001:db8::1 =h 2001:db8::/32 2000::/10 ::/0 = .",
        ),
    ],
)
def test_order_in_which_rules_count(
    client: Client, lengths: dict[int, tuple[int, ...]], want: bytes
) -> None:
    found = list(addresses(client, lengths))
    assert b" ".join([*found[:-1], b"."]) == want
    assert found[-1] == b""


def test_first_rule_decides_and_no_rule_allows() -> None:
    rules = {b"1.": DENY, b"": Rule(is_allowed=True, variables=((b"A", b"1"),))}
    denied = judge(rules.get, Client(address="1.2.3.4"), NO_NETWORKS)
    assert (denied.is_allowed, denied.rule, denied.is_explicit) == (False, b"1.", False)
    allowed = judge(rules.get, Client(address="2.2.3.4"), NO_NETWORKS)
    assert (allowed.variables, allowed.rule) == ({b"A": b"1"}, b"")
    assert allowed.is_explicit
    assert (
        judge(lambda _address: None, Client(address="1.2.3.4"), NO_NETWORKS) == ALLOWED
    )
    assert not ALLOWED.is_explicit


def test_last_of_two_values_counts() -> None:
    rule = Rule(is_allowed=True, variables=((b"A", b"1"), (b"A", b"2")))
    access = judge({b"": rule}.get, Client(address="::1"), NO_NETWORKS)
    assert access.variables == {b"A": b"2"}


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        judge(lambda _address: None, Client(address="host"), NO_NETWORKS)
