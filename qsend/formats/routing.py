"""From a recipient to where its mail goes: route and destination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qsend.core import mx
from qsend.core.model import Channel
from qsend.core.rewrite import Rules
from qsend.core.users import BREAK
from qsend.formats.control import Controls, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The controls that say where a recipient's mail goes."""

    rules: Rules
    smtproutes: Mapping[bytes, Route | None]

    def route(self, recip: bytes) -> tuple[bytes, Route | None]:
        """(domain, smtproutes entry in force) of a remote recipient."""
        domain = recip.rpartition(b"@")[2]
        return domain, mx.route(domain, self.smtproutes)

    def key(self, channel: Channel, recip: bytes) -> bytes:
        """The destination of a recipient: a relay, a domain, a local user.

        Whose a local part is only lookup knows; what stands before its first break
        is the same for all addresses of a user or a virtual domain.
        """
        if channel is Channel.LOCAL:
            return recip.rpartition(b"@")[0].partition(BREAK)[0].lower()
        domain, route = self.route(recip)
        if route is None:
            return mx.destination(domain)
        return mx.destination(domain, route.host, route.port)


def rules(controls: Controls) -> Rules:
    """How the controls have addresses rewritten."""
    return Rules(
        envnoathost=controls.envnoathost,
        locals=controls.locals,
        percenthack=controls.percenthack,
        virtualdomains=controls.virtualdomains,
    )
