"""The addresses of this machine.

Source: ipme.c, RFC 5321 5.1 ("best preference is me").
"""

from __future__ import annotations

import psutil

from qsend.core.errors import TempFail
from qsend.core.mx import canonical

_ANY = ("0.0.0.0", "::")  # the unspecified addresses connect to this machine


def own_addresses() -> frozenset[str]:
    """Canonical addresses of the interfaces that are up, without scopes, and any.

    IPv4 and IPv6, loopback included, and `0.0.0.0` and `::`, which connect to
    this machine.
    Raises: TempFail #4.3.0 when the system does not say.
    """
    try:
        up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
        found = {
            _without_scope(entry.address)
            for name, entries in psutil.net_if_addrs().items()
            if name in up
            for entry in entries
            if entry.family.name in ("AF_INET", "AF_INET6")
        }
    except OSError as exc:
        raise TempFail(
            f"The addresses of this machine are unknown: {exc.strerror}. (#4.3.0)"
        ) from exc
    return frozenset(found.union(_ANY))


def _without_scope(address: str) -> str:
    return canonical(address.split("%")[0])
