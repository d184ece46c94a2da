"""How long a login has to wait, so that nobody tries many passwords.

Failures count for the address they came from (an IPv6 /64 is one address) and for
the user they were tried on. The first few cost nothing; then attempts wait, one after
another, however many connections they come by. Who has logged in from an address
before does not wait for what others try on the same user.
A client b"" is one that nobody knows the address of: its failures count for the user.
Must not: judge passwords, or sleep.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from qsend.core.ttlcache import TtlCache

FREE = 5
"""Failures in a row that cost nothing: people mistype, and programs have an old
password after a change."""
ADDRESS_PAUSE_MAX_S = 30.0
USER_PAUSE_MAX_S = 5.0
"""Short: whoever wants to keep a user out can make the user fail from anywhere."""
WAIT_MAX_S = 30.0
"""Who would have to wait longer is told to come again."""
MEMORY_S = 900.0
"""After this long without a failure an address or user starts afresh."""
KNOWN_S = 86400.0
_ENTRIES_MAX = 20000
"""About 5 MiB for each of the three tables."""


@dataclass(slots=True)
class _Past:
    failures: int = 0
    free_mono: float = 0.0
    """When the next attempt may be made."""


class LoginBrake:
    """All failures of late."""

    def __init__(self) -> None:
        self._addresses: TtlCache[bytes, _Past] = TtlCache(_ENTRIES_MAX)
        self._users: TtlCache[bytes, _Past] = TtlCache(_ENTRIES_MAX)
        self._known: TtlCache[tuple[bytes, bytes], bool] = TtlCache(_ENTRIES_MAX)

    def wait_s(self, client: bytes, name: bytes, now_mono: float) -> float | None:
        """How long this attempt has to wait before it is judged; its turn is taken.

        Returns: seconds, 0.0 for none; None when it must be refused unjudged.
        """
        address, user = network(client), name.lower()
        turns = []
        if client:
            turns.append((self._addresses.get(address, now_mono), ADDRESS_PAUSE_MAX_S))
        if self._known.get((address, user), now_mono) is None:
            turns.append((self._users.get(user, now_mono), USER_PAUSE_MAX_S))
        braked = [
            (past, _pause_s(past.failures, most_s))
            for past, most_s in turns
            if past is not None and past.failures > FREE
        ]
        wait_s = max((past.free_mono - now_mono for past, _ in braked), default=0.0)
        if wait_s > WAIT_MAX_S:
            return None
        for past, pause_s in braked:
            past.free_mono = max(past.free_mono, now_mono) + pause_s
        return max(wait_s, 0.0)

    def failed(self, client: bytes, name: bytes, now_mono: float) -> None:
        """The attempt was wrong."""
        for cache, key, most_s in (
            (self._addresses, network(client), ADDRESS_PAUSE_MAX_S),
            (self._users, name.lower(), USER_PAUSE_MAX_S),
        ):
            if not key:
                continue  # nobody knows where it came from
            past = cache.get(key, now_mono) or _Past()
            past.failures += 1
            if past.failures > FREE:
                pause_s = _pause_s(past.failures, most_s)
                past.free_mono = max(past.free_mono, now_mono + pause_s)
            cache.put(key, past, now_mono, MEMORY_S)

    def succeeded(self, client: bytes, name: bytes, now_mono: float) -> None:
        """The attempt was right: the user is free again, the address stays as it is.

        Otherwise one account of one's own would make trying others free.
        """
        address, user = network(client), name.lower()
        self._users.put(user, _Past(), now_mono, 0)
        if client:
            self._known.put((address, user), True, now_mono, KNOWN_S)


def _pause_s(failures: int, most_s: float) -> float:
    """1, 2, 4 ... seconds after the failures that cost nothing."""
    return float(min(most_s, 2 ** min(failures - FREE - 1, 10)))


@lru_cache(4096)
def network(client: bytes) -> bytes:
    """What counts as one address: all of IPv4, the first half of IPv6."""
    try:
        address = ipaddress.ip_address(client.decode("ascii", "replace").split("%")[0])
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return address.packed[:8] if mapped is None else mapped.packed
    return address.packed
