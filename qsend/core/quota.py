"""Shares of the injection service: how much of it each ordinary uid may have.

Counts only; who is counted and what follows is the caller's. Root, qsend's own
accounts, bounces and forwards of local deliveries are never counted.
Source: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ordinary uids may have, all together and each.

    `bytes_per_uid` counts messages in progress: more at once than a human sends,
    and far less than a disk. A connection counts as stalled after `stalled_s`
    without a frame. `message_s` is qmail-queue's DEATH.
    """

    connections: int = 1000
    connections_per_uid: int = 100
    streams: int = 2000
    streams_per_uid: int = 100
    bytes_per_uid: int = 1 << 30
    stalled_s: float = 10.0
    message_s: float = 86400.0

    @classmethod
    def for_descriptors(cls, most: int) -> Limits:
        """Limits that leave more than half of `most` descriptors to the others.

        A stream has one descriptor while it comes in, two while it is sealed.
        """
        return cls(connections=min(1000, most // 8), streams=min(2000, most // 8))


class _Usage:
    __slots__ = ("connections", "stored", "streams")

    def __init__(self) -> None:
        self.connections = 0
        self.streams = 0
        self.stored = 0


class Quota:
    """Current use by uid, against fixed limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._usages: dict[int, _Usage] = {}
        self._connections = 0
        self._streams = 0

    def connect(self, uid: int) -> None:
        """Count one connection more."""
        self._use(uid).connections += 1
        self._connections += 1

    def disconnect(self, uid: int) -> None:
        """Count one connection less."""
        self._use(uid).connections -= 1
        self._connections -= 1
        self._tidy(uid)

    def has_own_share(self, uid: int) -> bool:
        """Whether `uid` has as many connections as one uid may."""
        usage = self._usages.get(uid)
        return bool(usage and usage.connections >= self.limits.connections_per_uid)

    def is_full(self) -> bool:
        """Whether all connections for ordinary uids are taken."""
        return self._connections >= self.limits.connections

    def who_makes_room(self, uid: int) -> tuple[int, bool]:
        """Which uid gives up a connection for `uid` when all are taken.

        Returns: the uid with most connections, and whether one of them may go
            even if it is busy: that uid has more than an equal share, `uid` less.
        """
        users = {one for one, usage in self._usages.items() if usage.connections}
        heaviest = max(users, key=lambda one: self._usages[one].connections)
        share = self.limits.connections / len(users | {uid})
        mine = self._usages[uid].connections if uid in users else 0
        most = self._usages[heaviest].connections
        return heaviest, mine + 1 <= share < most

    def begin(self, uid: int) -> Share:
        """Count one stream more; `end` the share when it is over."""
        self._use(uid).streams += 1
        self._streams += 1
        return Share(self, uid)

    def is_over(self, uid: int, more_bytes: int = 0) -> bool:
        """Whether the streams of `uid`, or its bytes and those, are too many."""
        usage, limits = self._use(uid), self.limits
        return (
            self._streams > limits.streams
            or usage.streams > limits.streams_per_uid
            or usage.stored + more_bytes > limits.bytes_per_uid
        )

    def store(self, uid: int, more_bytes: int) -> None:
        """Count bytes of a message in progress."""
        self._use(uid).stored += more_bytes

    def end(self, uid: int, stored: int) -> None:
        """Count one stream with its bytes less."""
        usage = self._use(uid)
        usage.streams -= 1
        usage.stored -= stored
        self._streams -= 1
        self._tidy(uid)

    def _use(self, uid: int) -> _Usage:
        return self._usages.setdefault(uid, _Usage())

    def _tidy(self, uid: int) -> None:
        usage = self._usages[uid]
        if not usage.connections and not usage.streams:
            del self._usages[uid]


class Share:
    """What one stream takes of its uid's quota; without a quota, anything goes."""

    __slots__ = ("_quota", "_stored", "_uid")

    def __init__(self, quota: Quota | None = None, uid: int = -1) -> None:
        self._quota = quota
        self._uid = uid
        self._stored = 0

    def is_over(self, more_bytes: int) -> bool:
        """Whether `more_bytes` would be too much; nothing is counted."""
        return self._quota is not None and self._quota.is_over(self._uid, more_bytes)

    def grow(self, more_bytes: int) -> None:
        """Count bytes."""
        if self._quota is not None:
            self._quota.store(self._uid, more_bytes)
            self._stored += more_bytes

    def end(self) -> None:
        """Give everything back; harmless when repeated."""
        quota, self._quota = self._quota, None
        if quota is not None:
            quota.end(self._uid, self._stored)
