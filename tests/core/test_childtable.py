"""The table of a supervised child is total, ends, and brakes."""

from __future__ import annotations

from itertools import product

import pytest

from qsend.core.childtable import ALIVE, TABLE, Action, Brake, Event, State

S, E, A = State, Event, Action


def test_table_has_exactly_every_pair() -> None:
    assert set(TABLE) == set(product(State, Event))


@pytest.mark.parametrize("state", [state for state in State if state is not S.GONE])
def test_stop_leads_to_gone_from_every_state(state: State) -> None:
    after, actions = TABLE[state, E.STOP]
    if after is not S.GONE:
        assert after is S.STOPPING
        assert actions == (() if state in (S.DRAINING, S.STOPPING) else (A.END,))
        after, actions = TABLE[after, E.EXIT]
    assert (after, actions) == (S.GONE, ())


def test_gone_is_final() -> None:
    assert {TABLE[S.GONE, event] for event in Event} == {(S.GONE, ())}


def test_fork_happens_only_without_a_process() -> None:
    forking = {state for (state, _), (_, acts) in TABLE.items() if A.FORK in acts}
    assert forking == {S.BACKOFF, S.ONCE}
    assert S.BACKOFF not in ALIVE


def test_child_is_told_to_end_only_while_it_is_alive_and_once() -> None:
    telling = {
        (state, after) for (state, _), (after, acts) in TABLE.items() if A.END in acts
    }
    assert telling == {
        *product((S.STARTING, S.RUNNING), (S.DRAINING, S.STOPPING)),
        (S.ONCE, S.STOPPING),
    }


PATHS: list[tuple[list[Event], list[State], list[Action]]] = [
    (
        [E.TIMER, E.FORKED, E.READY, E.EXIT, E.TIMER],
        [S.BACKOFF, S.STARTING, S.RUNNING, S.BACKOFF, S.BACKOFF],
        [A.FORK, A.TELL_LOST, A.COUNT, A.END_UNIT, A.WAIT, A.FORK],
    ),
    (
        [E.TIMER, E.EXIT],
        [S.BACKOFF, S.BACKOFF],
        [A.FORK, A.BRAKE, A.END_UNIT, A.WAIT],
    ),
    (
        [E.TIMER, E.FORKED, E.EXIT],
        [S.BACKOFF, S.STARTING, S.BACKOFF],
        [A.FORK, A.TELL_LOST, A.COUNT, A.END_UNIT, A.WAIT],
    ),
    (
        [E.TIMER, E.FORKED, E.UNIT_EXIT, E.READY, E.EXIT],
        [S.BACKOFF, S.STARTING, S.DRAINING, S.DRAINING, S.BACKOFF],
        [A.FORK, A.END, A.TELL_FAILED, A.WAIT],
    ),
]


@pytest.mark.parametrize(("events", "states", "actions"), PATHS)
def test_life_of_a_child(
    events: list[Event], states: list[State], actions: list[Action]
) -> None:
    state = S.BACKOFF
    passed: list[State] = []
    done: list[Action] = []
    for event in events:
        state, acts = TABLE[state, event]
        passed.append(state)
        done += acts
    assert passed == states
    assert done == actions


def test_delay_grows_to_a_minute() -> None:
    brake, delays = Brake(), []
    for _ in range(10):
        brake = brake.after_end(was_ready=True, ran_s=1)
        delays.append(brake.delay_s)
    assert delays == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert not brake.gives_up


def test_running_for_a_minute_resets_the_delay() -> None:
    brake = Brake(ends=7)
    assert brake.after_end(was_ready=True, ran_s=59.9).delay_s == 60
    assert brake.after_end(was_ready=True, ran_s=60).delay_s == 0


def test_fifth_boot_failure_in_a_row_gives_up() -> None:
    brake, seen = Brake(), []
    for _ in range(5):
        brake = brake.after_end(was_ready=False, ran_s=1000)
        seen.append((brake.delay_s, brake.gives_up))
    assert seen == [(0, False), (1, False), (2, False), (4, False), (8, True)]


def test_forks_that_fail_are_tried_again_for_ever() -> None:
    brake = Brake()
    for _ in range(100):
        brake = brake.not_forked()
    assert brake == Brake(ends=100, boot_failures=0)
    assert brake.delay_s == 60


def test_becoming_ready_forgives_boot_failures() -> None:
    brake = Brake()
    for _ in range(4):
        brake = brake.after_end(was_ready=False, ran_s=0)
    brake = brake.after_end(was_ready=True, ran_s=0)
    assert brake == Brake(ends=5, boot_failures=0)
