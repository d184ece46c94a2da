"""When start asks send whether it is alive, and when it vouches for the tree."""

from __future__ import annotations

import pytest

from qsend.core.childtable import State
from qsend.core.pulse import ABSENT_MAX_S, PERIOD_MAX_S, Beat, Pulse, beat, period_s

AWAY = [state for state in State if state is not State.RUNNING]
FRESH, ASKED = Pulse(), Pulse(is_asked=True)


@pytest.mark.parametrize(
    ("watchdog_s", "want"), [(None, 30.0), (2.0, 0.5), (120.0, 30.0), (4000.0, 30.0)]
)
def test_period_leaves_room_for_late_answers(
    watchdog_s: float | None, want: float
) -> None:
    assert period_s(watchdog_s) == want <= PERIOD_MAX_S


def test_running_send_is_asked_once_and_vouches_by_its_answer() -> None:
    first = beat(FRESH, State.RUNNING, 10.0, stopping=False)
    assert first == Beat(pulse=ASKED, asks=True)
    # It does not answer: it is not asked again, and nobody says that all is well.
    assert beat(ASKED, State.RUNNING, 20.0, stopping=False) == Beat(pulse=ASKED)


@pytest.mark.parametrize("state", AWAY)
def test_send_that_is_away_is_vouched_for_some_minutes(state: State) -> None:
    first = beat(ASKED, state, 100.0, stopping=False)
    assert first == Beat(pulse=Pulse(absent_since_mono=100.0), is_alive=True)
    last = 100.0 + ABSENT_MAX_S
    again = beat(first.pulse, state, last - 1, stopping=False)
    assert again == first
    too_long = beat(again.pulse, state, last, stopping=False)
    assert too_long == Beat(pulse=first.pulse)


@pytest.mark.parametrize("state", list(State))
def test_stop_has_time_limits_of_its_own(state: State) -> None:
    pulse = Pulse(is_asked=True, absent_since_mono=1.0)
    assert beat(pulse, state, 1e6, stopping=True) == Beat(pulse=pulse, is_alive=True)
