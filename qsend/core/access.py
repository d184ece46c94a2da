"""Who may connect, and with which variables: the search among access rules.

The rules are those of tcpserver, found in its order; networks (`10.0.0.0/8`,
`2001:db8::/32`) stand among the prefixes, the longest first. Must not: read a file.
Source: ucspi-tcp rules.c, tcprules(1); docs/NETWORK.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

QUEUE_VARIABLE = b"QMAILQUEUE"
"""Names the program that takes a client's messages in the place of qmail-queue."""

_COMPONENT_BITS = 8
_IPV4_COMPONENTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who connected.

    `address` is canonical text (core/mx.py canonical), without scope; `host` its
    name in lower case, None when it has none or nobody looked; `info` what ident
    (RFC 1413) said, None without.
    """

    address: str
    host: bytes | None = None
    info: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The instructions of one rule; of two variables with one name the last counts."""

    is_allowed: bool
    variables: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the rules say of a client.

    `variables` are to be put into the client's environment; `rule` is the address of
    the rule that decided, b"" for the one for everybody, None when no rule did.
    """

    is_allowed: bool
    variables: Mapping[bytes, bytes] = field(default_factory=dict)
    rule: bytes | None = None

    @property
    def is_explicit(self) -> bool:
        """Whether a rule lets the client in; QMQP takes no others."""
        return self.is_allowed and self.rule is not None


ALLOWED = Access(is_allowed=True)
"""What a client gets where no rule is for it."""


def judge(
    find: Callable[[bytes], Rule | None],
    client: Client,
    lengths: Mapping[int, Sequence[int]],
) -> Access:
    """The instructions of the first rule for a client; without one it is allowed.

    Args:
        find: the rule with exactly that address, or None; what it raises passes.
        lengths: the prefix lengths for which there are networks, by 4 and 6.
    Raises: ValueError when the client's address is none.
    """
    for address in addresses(client, lengths):
        rule = find(address)
        if rule is not None:
            variables = dict(rule.variables)
            return Access(is_allowed=rule.is_allowed, variables=variables, rule=address)
    return ALLOWED


def addresses(client: Client, lengths: Mapping[int, Sequence[int]]) -> Iterator[bytes]:
    """The addresses of rules for a client, in the order in which they count."""
    ip, host, info = client.address.encode(), client.host, client.info
    if info is not None:
        yield b"%b@%b" % (info, ip)
        if host is not None:
            yield b"%b@=%b" % (info, host)
    yield ip
    if host is not None:
        yield b"=" + host
    yield from _prefixes(client.address, lengths)
    if host is not None:
        for at in range(len(host)):
            if host[at : at + 1] == b".":
                yield b"=" + host[at:]
        yield b"="
    yield b""


def _prefixes(address: str, lengths: Mapping[int, Sequence[int]]) -> list[bytes]:
    """Longest first; of equal ones tcpserver's own, `10.2.`, before the network."""
    parsed = ipaddress.ip_address(address)
    found: list[tuple[int, bool, bytes]] = []
    for bits in lengths.get(parsed.version, ()):
        network = ipaddress.ip_network((parsed, bits), strict=False)
        found.append((-bits, True, str(network).encode()))
    if parsed.version == 4:
        parts = address.split(".")
        for count in range(1, _IPV4_COMPONENTS):
            text = ".".join(parts[:count]) + "."
            found.append((-count * _COMPONENT_BITS, False, text.encode()))
    return [text for _, _, text in sorted(found)]
