"""The machine's own addresses."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from qsend.sysio.localaddrs import OwnAddresses, own_addresses


def test_own_addresses_are_canonical_and_without_scope() -> None:
    own = own_addresses()
    assert {"127.0.0.1", "0.0.0.0", "::"} <= own
    assert all(str(ipaddress.ip_address(address)) == address for address in own)
    assert not any("%" in address for address in own)


def test_own_addresses_can_be_bound() -> None:
    for address in own_addresses():
        parsed = ipaddress.ip_address(address)
        if parsed.is_link_local:
            continue  # needs its scope to be bound
        family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
            assert sock.getsockname()[1] > 0


def test_foreign_address_cannot_be_bound() -> None:
    foreign = "192.0.2.77"
    assert foreign not in own_addresses()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(OSError, match="assign"),
    ):
        sock.bind((foreign, 0))


@pytest.mark.parametrize(
    ("address", "has_ipv6"),
    [("10.0.0.1", False), ("fe80::1", False), ("2001:db8::1", True), ("fd00::1", True)],
)
def test_ipv6_is_an_address_that_others_can_be_reached_from(
    address: str, has_ipv6: bool
) -> None:
    own = OwnAddresses(lambda: frozenset({"127.0.0.1", "::1", "::", address}))
    assert own.has_ipv6() == has_ipv6
