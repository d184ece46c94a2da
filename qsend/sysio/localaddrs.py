"""The addresses of this machine.

Source: ipme.c, RFC 5321 5.1 ("best preference is me").
"""

from __future__ import annotations

from collections.abc import Callable

import psutil

from qsend.core.errors import TempFail
from qsend.core.mx import canonical
from qsend.sysio import clock

OWN_S = 300.0
"""How long the list of this machine's addresses is believed, if it can be asked
for again: a confined process may not be able to."""
_ANY = ("0.0.0.0", "::")  # the unspecified addresses connect to this machine
_STAY = ("::", "::1")


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


def _leaves(address: str) -> bool:
    return ":" in address and address not in _STAY and not address.startswith("fe80:")


def _without_scope(address: str) -> str:
    return canonical(address.split("%")[0])


class OwnAddresses:
    """This machine's addresses, asked for again after OWN_S.

    Raises: TempFail when they cannot be had the first time.
    """

    def __init__(
        self, find: Callable[[], frozenset[str]] = own_addresses, age_s: float = OWN_S
    ) -> None:
        self._find = find
        self._age_s = age_s
        self._found = find()
        self._until_mono = clock.mono() + age_s

    def __call__(self) -> frozenset[str]:
        """The addresses: the last known where asking again fails."""
        if clock.mono() >= self._until_mono:
            self._until_mono = clock.mono() + self._age_s
            try:
                self._found = self._find()
            except TempFail:
                pass  # the old list is better than no mail
        return self._found

    def has_ipv6(self) -> bool:
        """Whether any address is one from which others are reached by IPv6."""
        return any(_leaves(address) for address in self())

    def __contains__(self, address: object) -> bool:
        """Whether a canonical address is this machine's."""
        return address in self()
