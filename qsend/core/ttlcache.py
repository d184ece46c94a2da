"""A bounded map whose entries expire; the least recently used goes first.

Times are any monotonic clock's, given by the caller.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """At most `limit` values, each good until its time is over."""

    __slots__ = ("_entries", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now_mono: float) -> V | None:
        """The value, or None when it is absent or its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        end_mono, value = entry
        if now_mono >= end_mono:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, now_mono: float, ttl_s: float) -> None:
        """Keep `value` for `ttl_s` seconds; 0 or less keeps nothing."""
        self._entries.pop(key, None)
        if ttl_s <= 0:
            return
        self._entries[key] = (now_mono + ttl_s, value)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
