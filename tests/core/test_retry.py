from __future__ import annotations

import pytest

from qsend.core.model import Channel
from qsend.core.retry import is_dying, next_retry

WEEK = 604800


@pytest.mark.parametrize(
    ("channel", "ages"),
    [
        (Channel.LOCAL, [0, 100, 400, 900, 1600]),
        (Channel.REMOTE, [0, 400, 1600, 3600, 6400, 10000]),
    ],
)
def test_attempts_follow_the_quadratic_schedule(
    channel: Channel, ages: list[int]
) -> None:
    birth, now = 1_000_000, 1_000_000
    found = []
    for _ in ages:
        found.append(now - birth)
        now = next_retry(birth, now, channel)
    assert found == ages


@pytest.mark.parametrize(
    ("channel", "attempts"), [(Channel.LOCAL, 79), (Channel.REMOTE, 40)]
)
def test_last_attempt_is_at_608400_seconds(channel: Channel, attempts: int) -> None:
    birth = now = 5
    count = 1
    while not is_dying(birth, now, WEEK):
        now = next_retry(birth, now, channel)
        count += 1
    assert (now - birth, count) == (608400, attempts)


def test_root_is_the_integer_root() -> None:
    assert next_retry(0, 99, Channel.LOCAL) == (9 + 10) ** 2
    assert next_retry(0, 100, Channel.LOCAL) == (10 + 10) ** 2


def test_birth_in_the_future_waits_only_the_first_delay() -> None:
    assert next_retry(10**6, 0, Channel.LOCAL) == 100
    assert next_retry(10**6, 0, Channel.REMOTE) == 400


def test_expiry_is_strictly_after_the_lifetime() -> None:
    assert not is_dying(100, 100 + WEEK, WEEK)
    assert is_dying(100, 101 + WEEK, WEEK)
