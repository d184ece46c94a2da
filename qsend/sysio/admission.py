"""How many clients a listener has, in all and from each network.

Source: docs/NETWORK.md.
"""

from __future__ import annotations

from collections import Counter
from typing import Generic, Protocol, TypeVar


class Guest(Protocol):
    """Who is counted; `network` is what counts as one address (core/loginbrake.py)."""

    @property
    def network(self) -> bytes:
        """Must not change while it is counted."""


G = TypeVar("G", bound=Guest)


class Admission(Generic[G]):
    """The clients that are there; the limits may be changed at any time."""

    def __init__(self, sessions_max: int, per_network: int) -> None:
        self.sessions_max = sessions_max
        self.per_network = per_network
        self._guests: set[G] = set()
        self._by_network: Counter[bytes] = Counter()

    @property
    def guests(self) -> list[G]:
        """All that have entered and not left."""
        return list(self._guests)

    def is_full(self) -> bool:
        """Whether there is no room at all."""
        return len(self._guests) >= self.sessions_max

    def enter(self, guest: G) -> bool:
        """Count one more, if there is room for it."""
        if self.is_full() or self._by_network[guest.network] >= self.per_network:
            return False
        self._guests.add(guest)
        self._by_network[guest.network] += 1
        return True

    def leave(self, guest: G) -> None:
        """Count one less; harmless for who has not entered."""
        if guest not in self._guests:
            return
        self._guests.remove(guest)
        self._by_network[guest.network] -= 1
        if not self._by_network[guest.network]:
            del self._by_network[guest.network]
