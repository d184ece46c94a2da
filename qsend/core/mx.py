"""Where mail for a domain goes: routes, literals, MX order, "is it me?".

Pure: names and addresses in, decisions out; sysio/dns.py asks the questions.
Addresses are text in the canonical form of `canonical`, names are bytes.
Source: qmail-remote.c, dns.c, ipalloc.h; RFC 5321 sections 4.1.3 and 5.1; RFC 7505.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from qsend.core.errors import PermFail

T = TypeVar("T")

MX_MAX = 20
"""Mail exchangers of one domain that are looked up; the largest providers name
fewer than ten, and each costs two queries."""

ADDRESSES_MAX = 40
"""Addresses of one destination that are tried; RFC 5321 5.1 asks for two."""

_IPV6_TAG = "ipv6:"
_SPELLINGS_MAX = 4096
"""Addresses whose one spelling is remembered: `ipaddress` takes 6 us for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One address to try.

    `address` is canonical IPv4 or IPv6 text, without brackets; `preference` is
    that of the MX record, 0 without one; `name` is the name that was looked up.
    """

    address: str
    preference: int
    name: bytes


@lru_cache(_SPELLINGS_MAX)
def canonical(address: str) -> str:
    """The one spelling of an IP address that qsend compares.

    IPv4 in IPv6 clothes (`::ffff:192.0.2.1`) becomes plain IPv4, so that it is
    recognised as the same machine. A scope (`%eth0`) stays.
    Raises: ValueError when `address` is no IP address.
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def literal(domain: bytes) -> str | None:
    """The canonical address that a domain names without the DNS, or None.

    `[192.0.2.1]`, `192.0.2.1` and `[IPv6:2001:db8::1]`, as a whole. Unlike
    qmail, which takes octets modulo 256, an octet over 255 makes it no literal.
    Source: ip_scan(), ip_scanbracket(), RFC 5321 4.1.3.
    """
    text = domain.decode("ascii", "replace")
    inner = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else None
    if inner is not None and inner[: len(_IPV6_TAG)].lower() == _IPV6_TAG:
        return _address(inner[len(_IPV6_TAG) :], ipaddress.IPv6Address)
    return _address(text if inner is None else inner, ipaddress.IPv4Address)


def relay_literal(relay: bytes) -> str | None:
    """As `literal`, and a plain IPv6 address too; the operator writes relays."""
    found = literal(relay)
    if found is not None:
        return found
    return _address(relay.decode("ascii", "replace"), ipaddress.IPv6Address)


def _address(
    text: str, kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]
) -> str | None:
    try:
        return canonical(str(kind(text)))
    except ValueError:
        return None


def route(domain: bytes, routes: Mapping[bytes, T | None]) -> T | None:
    """The route of the first key that is present; None means "by MX".

    Keys are lower case and probed in this order: the domain, each suffix that
    starts with a dot from left to right, b"". A key that maps to None ends the
    search, so an exception can be made from a wildcard.

    Args:
        domain: any case; b"" and literals are probed like any other name.
        routes: `Controls.smtproutes`, or any map of that shape.
    Source: qmail-remote.c main(), constmap of control/smtproutes.
    """
    for key in _route_keys(domain.lower()):
        if key in routes:
            return routes[key]
    return None


def _route_keys(domain: bytes) -> Iterable[bytes]:
    yield domain
    at = domain.find(b".")
    while at >= 0:
        yield domain[at:]
        at = domain.find(b".", at + 1)
    yield b""


def destination(domain: bytes, relay: bytes = b"", port: int = 25) -> bytes:
    """The key under which recipients share sessions, limits and health.

    `relay:port` for a routed domain, else the domain in lower case; a domain
    that contains a colon gets a leading `@`, so that no recipient can name
    itself into a relay's queue.
    """
    if relay:
        return b"%s:%d" % (relay.lower(), port or 25)
    key = domain.lower()
    return b"@" + key if b":" in key else key


def shown(name: bytes) -> str:
    """A peer's name for a report: bytes below 33 and above 126 become `?`."""
    return "".join(chr(byte) if 33 <= byte <= 126 else "?" for byte in name)


def order_targets(
    records: Iterable[tuple[int, bytes]], random: Callable[[], float]
) -> list[tuple[int, bytes]]:
    """(preference, target) pairs, lowest preference first, at most MX_MAX.

    Args:
        records: the MX records, any order, targets without the final dot; the
            target b"" (RFC 7505) among others is dropped.
        random: a number from 0 up per call; it orders equal preferences.
    Source: dns.c dns_mxip(), RFC 5321 5.1.
    """
    ranked = [
        (preference, random(), target) for preference, target in records if target
    ]
    ranked.sort(key=lambda entry: entry[:2])
    return [(preference, target) for preference, _, target in ranked[:MX_MAX]]


def is_null_mx(records: Sequence[tuple[int, bytes]]) -> bool:
    """Whether the only MX record is `.`: the domain takes no mail (RFC 7505)."""
    return len(records) == 1 and records[0][1] == b""


def refuse_null_mx(domain: bytes) -> PermFail:
    """The failure of a domain with a null MX."""
    return PermFail(
        f"The domain {shown(domain)} does not accept mail (null MX). (#5.1.10)"
    )


def candidates(domain: bytes, hosts: Sequence[Host], own: Container[str]) -> list[Host]:
    """The hosts that are better mail exchangers than this machine, in order.

    A host as good as or worse than the best address of our own is left out:
    sending to it could loop. For a relay pass `own=()`; it may be this machine.

    Args:
        domain: for the text of the failure.
        hosts: all addresses of the domain, best first; not empty.
        own: canonical addresses of this machine, without scopes.
    Raises: PermFail #5.4.6 when no host is left.
    Source: qmail-remote.c main(), prefme.
    """
    mine = [host.preference for host in hosts if host.address.split("%")[0] in own]
    if not mine:
        return list(hosts)
    best = min(mine)
    better = [host for host in hosts if host.preference < best]
    if not better:
        raise PermFail(
            f"The best mail exchanger of {shown(domain)} is this machine, but the"
            " domain is not in my control/locals or virtualdomains. (#5.4.6)"
        )
    return better
