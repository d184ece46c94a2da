"""What the DNS says about this machine's own name and addresses, for `config`.

Blocks; for programs that have nothing else to do.
Source: qmail dnsfq.c, dnsip.c, dnsptr.c, ipmeprint.c; RFC 1035 3.5.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import dns.exception
import dns.nameserver
import dns.resolver

from qsend.core.firstcontrols import is_host_name
from qsend.formats.control import Resolver
from qsend.sysio.localaddrs import own_addresses

_LIFETIME_S = 10.0
"""Longest time for one question; a machine has a handful of addresses."""


class HostNames:
    """Asks a list of DNS servers."""

    def __init__(self, resolvers: Sequence[Resolver]) -> None:
        """`resolvers` holds at least one."""
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = [
            dns.nameserver.Do53Nameserver(each.host, each.port) for each in resolvers
        ]
        self._resolver.lifetime = _LIFETIME_S

    def addresses(self, name: str) -> list[str]:
        """The addresses of a host, IPv4 first; none when the DNS does not tell."""
        found = []
        for rdtype in ("A", "AAAA"):
            try:
                answer = self._resolver.resolve(name, rdtype, search=False)
            except dns.exception.DNSException:
                continue
            found += [str(rdata) for rdata in answer]
        return found

    def name(self, address: str) -> bytes | None:
        """The host name of an address, in lower case; None without a good one."""
        try:
            answer = self._resolver.resolve_address(address)
        except dns.exception.DNSException:
            return None
        for rdata in answer:
            name = str(rdata).rstrip(".").lower().encode("ascii", "replace")
            if is_host_name(name):
                return name
        return None


def interface_addresses() -> list[str]:
    """Every address that others may reach this machine by, and loopback, in order.

    Raises: TempFail as own_addresses.
    """
    found = map(ipaddress.ip_address, own_addresses())
    good = [each for each in found if not (each.is_unspecified or each.is_link_local)]
    return [str(each) for each in sorted(good, key=lambda each: (each.version, each))]
