"""Quota: counts, limits, and who makes room."""

from __future__ import annotations

from qsend.core.quota import Limits, Quota, Share

LIMITS = Limits(
    connections=6,
    connections_per_uid=4,
    streams=5,
    streams_per_uid=3,
    bytes_per_uid=100,
)


def connected(**counts: int) -> Quota:
    quota = Quota(LIMITS)
    for uid, count in counts.items():
        for _ in range(count):
            quota.connect(int(uid[1:]))
    return quota


def test_own_share_of_connections() -> None:
    quota = connected(u1=3, u2=1)
    assert not quota.has_own_share(1)
    assert not quota.has_own_share(3)
    quota.connect(1)
    assert quota.has_own_share(1)
    quota.disconnect(1)
    assert not quota.has_own_share(1)


def test_full_counts_all_uids() -> None:
    quota = connected(u1=3, u2=2)
    assert not quota.is_full()
    quota.connect(3)
    assert quota.is_full()


def test_newcomer_below_the_share_takes_from_the_heaviest_even_if_busy() -> None:
    # Shares of 6 among three uids are 2 each.
    assert connected(u1=4, u2=2).who_makes_room(3) == (1, True)
    assert connected(u1=4, u2=1, u3=1).who_makes_room(3) == (1, True)


def test_nobody_above_the_share_gives_up_only_what_is_stalled() -> None:
    assert connected(u1=2, u2=2, u3=2).who_makes_room(3) == (1, False)
    heaviest, is_busy_too = connected(u1=3, u2=3).who_makes_room(2)
    assert heaviest in (1, 2)
    assert not is_busy_too


def test_streams_of_one_uid_and_of_all() -> None:
    quota = Quota(LIMITS)
    mine = [quota.begin(1) for _ in range(3)]
    assert not quota.is_over(1)
    mine.append(quota.begin(1))
    assert quota.is_over(1)
    mine.pop().end()
    assert not quota.is_over(1)
    others = [quota.begin(uid) for uid in (2, 3)]
    assert not quota.is_over(4)
    others.append(quota.begin(4))
    assert quota.is_over(4)
    assert others[-1].is_over(0)


def test_bytes_count_per_uid_until_the_end() -> None:
    quota = Quota(LIMITS)
    one, two = quota.begin(1), quota.begin(1)
    one.grow(60)
    two.grow(40)
    assert not two.is_over(0)
    assert two.is_over(1)
    one.end()
    one.end()
    assert not two.is_over(60)
    assert two.is_over(61)


def test_share_without_a_quota_allows_anything() -> None:
    share = Share()
    share.grow(1 << 60)
    assert not share.is_over(1 << 60)
    share.end()


def test_limits_leave_half_of_the_descriptors() -> None:
    for most in (256, 1024, 1 << 20):
        limits = Limits.for_descriptors(most)
        assert limits.connections + 2 * limits.streams <= most // 2
