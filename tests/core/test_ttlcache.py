"""The bounded cache: expiry and order of eviction."""

from __future__ import annotations

from qsend.core.ttlcache import TtlCache


def test_value_lives_until_its_time() -> None:
    cache: TtlCache[str, int] = TtlCache(10)
    cache.put("a", 1, 100.0, 5)
    assert cache.get("a", 104.9) == 1
    assert cache.get("a", 105.0) is None
    assert len(cache) == 0


def test_least_recently_used_goes_first() -> None:
    cache: TtlCache[str, int] = TtlCache(2)
    cache.put("a", 1, 0.0, 9)
    cache.put("b", 2, 0.0, 9)
    assert cache.get("a", 1.0) == 1
    cache.put("c", 3, 1.0, 9)
    assert [cache.get(key, 2.0) for key in "abc"] == [1, None, 3]


def test_zero_ttl_keeps_nothing_and_forgets_the_old() -> None:
    cache: TtlCache[str, int] = TtlCache(2)
    cache.put("a", 1, 0.0, 9)
    cache.put("a", 2, 0.0, 0)
    assert cache.get("a", 0.0) is None


def test_clear_forgets_everything() -> None:
    cache: TtlCache[str, int] = TtlCache(2)
    cache.put("a", 1, 0.0, 9)
    cache.clear()
    assert cache.get("a", 0.0) is None
