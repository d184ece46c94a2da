"""Sentences that say how the control files treat an address, for people.

They follow core/rewrite.py and core/sqllocality.py settle() step by step.
"""

from __future__ import annotations

from collections.abc import Iterator

from qsend.core.rewrite import Rules, prepended
from qsend.core.sqlrules import shown


def qualified_steps(recip: bytes, rules: Rules) -> Iterator[str]:
    """What envnoathost and percenthack make of an address."""
    address = recip
    if b"@" not in recip:
        address = recip + b"@" + rules.envnoathost
        yield f"no domain: control/envnoathost makes it {shown(address)}"
    local, _, domain = address.rpartition(b"@")
    while domain.lower() in rules.percenthack and b"%" in local:
        was = domain
        local, _, domain = local.rpartition(b"%")
        address = local + b"@" + domain
        yield f"control/percenthack has {shown(was)}: it becomes {shown(address)}"


def locals_step(address: bytes, rules: Rules) -> str:
    """Whether the domain is in control/locals."""
    domain = address.rpartition(b"@")[2].lower()
    has = "has" if domain in rules.locals else "has no"
    return f"control/locals {has} {shown(domain)}"


def placed_steps(address: bytes, rules: Rules, *, has_database: bool) -> Iterator[str]:
    """What locals and virtualdomains make of an address that no row takes."""
    local, _, domain = address.rpartition(b"@")
    if domain.lower() not in rules.locals:
        yield _prepended_step(address, rules)
    elif has_database:
        yield _prepended_step(local + b"@" + rules.envnoathost, rules)


def _prepended_step(address: bytes, rules: Rules) -> str:
    prepend = prepended(address, rules.virtualdomains)
    if prepend:
        return f"control/virtualdomains: {shown(address)} gets {shown(prepend)}"
    return f"control/virtualdomains has nothing for {shown(address)}"
