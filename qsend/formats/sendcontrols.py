"""The controls in the shape that the parts of send ask for."""

from __future__ import annotations

from qsend.core import mx
from qsend.core.bounce import Identity
from qsend.core.model import Channel
from qsend.core.settings import Settings
from qsend.formats.control import Controls
from qsend.formats.delivery import RECIPS_MAX
from qsend.formats.routing import Routing, rules


def settings(controls: Controls, classic: bool) -> Settings:
    """What the manager needs; `classic` remote attempts have one recipient each.

    A destination may run concurrencyperhost attempts, a relay that smtproutes
    names as many as the channel.
    """
    relays = {
        mx.destination(b"", route.host, route.port)
        for route in controls.smtproutes.values()
        if route is not None
    }

    def destination_limit(key: bytes) -> int:
        if key in relays:
            return controls.concurrencyremote
        return controls.concurrencyperhost

    return Settings(
        lifetime=controls.queuelifetime,
        limits={
            Channel.LOCAL: controls.concurrencylocal,
            Channel.REMOTE: controls.concurrencyremote,
        },
        destination_limit=destination_limit,
        virtualdomains=controls.virtualdomains,
        group_max=1 if classic else RECIPS_MAX,
    )


def bounce_identity(controls: Controls) -> Identity:
    """Who bounces."""
    return Identity(
        bouncefrom=controls.bouncefrom,
        bouncehost=controls.bouncehost,
        doublebounceto=controls.doublebounceto,
        doublebouncehost=controls.doublebouncehost,
    )


def routing(controls: Controls) -> Routing:
    """Where recipients' mail goes."""
    return Routing(rules=rules(controls), smtproutes=controls.smtproutes)
