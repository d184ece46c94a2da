"""Steps of the wall clock, and what the schedule makes of them."""

from __future__ import annotations

from qsend.core.clocksteps import DRIFT_S, ClockSteps
from qsend.core.dues import Dues
from qsend.core.model import Channel, MessId
from qsend.core.retry import longest_delay, next_retry

DAY = 86400


def test_drift_is_no_step() -> None:
    steps = ClockSteps(1000, 0.0, DAY)
    for turn in range(1, 100):
        assert steps.look(1000 + turn * (60 + DRIFT_S - 1), turn * 60.0) == 0
    assert steps.ahead_s == 0


def test_step_forward_counts_until_it_is_forgotten() -> None:
    steps = ClockSteps(1000, 0.0, DAY)
    assert steps.look(1010 + 3 * DAY, 10.0) == 3 * DAY
    assert steps.ahead_s == 3 * DAY
    assert steps.look(1020 + 3 * DAY, 20.0) == 0
    assert steps.ahead_s == 3 * DAY
    steps.look(1020 + 4 * DAY, 20.0 + DAY)
    assert steps.ahead_s == 0


def test_step_back_takes_back_what_was_too_much() -> None:
    steps = ClockSteps(1000, 0.0, DAY)
    steps.look(1000 + DAY, 0.0)
    steps.look(1000 + 3 * DAY, 0.0)
    assert steps.look(1000 + DAY // 2, 0.0) == -5 * DAY // 2
    assert steps.ahead_s == DAY // 2
    assert steps.look(0, 0.0) < 0
    assert steps.ahead_s == 0


def test_schedule_moves_back_in_order_and_not_below_the_epoch() -> None:
    dues = Dues()
    for due in (50, 300, 200):
        dues.push(due, MessId(due))
    dues.shift(-100)
    assert sorted(dues) == [(0, 50), (100, 200), (200, 300)]
    assert dues.next_due() == 0


def test_no_delay_within_the_lifetime_is_longer() -> None:
    for lifetime in (0, 1, 100, 604800):
        longest = longest_delay(lifetime)
        for age in {0, lifetime // 2, lifetime}:
            for channel in Channel:
                assert next_retry(0, age, channel) - age <= longest
