"""Where a recipient's mail goes: local or remote, and under which address.

Source: qmail-send(8), qmail-send.c rewrite and stripvdomprepend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from qsend.core.model import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The controls that rewriting needs; names and keys are lower case.

    `virtualdomains` maps `user@domain`, `domain`, `.suffix` or b"" to what is
    prepended; an empty value is an exception: the address is remote.
    """

    envnoathost: bytes
    locals: frozenset[bytes] = frozenset()
    percenthack: frozenset[bytes] = frozenset()
    virtualdomains: Mapping[bytes, bytes] = field(default_factory=dict)


def rewrite(recip: bytes, rules: Rules) -> tuple[Channel, bytes]:
    """The channel of a recipient and the address it is stored under.

    Args:
        recip: as the envelope has it, any bytes; may lack `@`.
        rules: the controls in force now.
    Returns: LOCAL with `value-address` for a virtual domain, LOCAL or REMOTE with
        the address as percenthack left it otherwise. Domain case is kept.
    Raises: Nothing.
    """
    address = qualified(recip, rules)
    if address.rpartition(b"@")[2].lower() in rules.locals:
        return Channel.LOCAL, address
    prepend = prepended(address, rules.virtualdomains)
    if prepend:
        return Channel.LOCAL, prepend + b"-" + address
    return Channel.REMOTE, address


def qualified(recip: bytes, rules: Rules) -> bytes:
    """The address with a domain, and as percenthack leaves it."""
    address = recip if b"@" in recip else recip + b"@" + rules.envnoathost
    local, _, domain = address.rpartition(b"@")
    while domain.lower() in rules.percenthack and b"%" in local:
        local, _, domain = local.rpartition(b"%")
        address = local + b"@" + domain
    return address


def strip_prepend(recip: bytes, virtualdomains: Mapping[bytes, bytes]) -> bytes:
    """The address a bounce shows: a virtual domain's prefix taken off again.

    Only `domain`, `.suffix` and b"" entries count, with the map in force now.
    """
    domain = recip.rpartition(b"@")[2].lower()
    for key in _domain_keys(domain):
        value = virtualdomains.get(key)
        if value is not None:
            if value and recip.startswith(value + b"-"):
                return recip[len(value) + 1 :]
            return recip
    return recip


def prepended(address: bytes, virtualdomains: Mapping[bytes, bytes]) -> bytes:
    """What the first key that matches an address says; b"" when none does."""
    if not virtualdomains:
        return b""
    whole = virtualdomains.get(address.lower())
    if whole is not None:
        return whole
    for key in _domain_keys(address.rpartition(b"@")[2].lower()):
        value = virtualdomains.get(key)
        if value is not None:
            return value
    return b""


def _domain_keys(domain: bytes) -> Iterator[bytes]:
    """`sub.dom`, `.dom`, b"": most to least specific."""
    yield domain
    at = domain.find(b".")
    while at >= 0:
        yield domain[at:]
        at = domain.find(b".", at + 1)
    yield b""
