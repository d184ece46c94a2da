"""What is left of a run that was stopped."""

from __future__ import annotations

from bench.outcome import Outcome
from bench.workload import MACHINE, Variant, turns, unfinished

SYSTEMS = ("qsend", "postfix")


def variant(title: str, *systems: str) -> Variant:
    return Variant("w1", title, lambda *_: None, systems)


def outcomes(which: Variant, rounds: int) -> list[Outcome]:
    return [
        Outcome(variant=which.name, system=system, round=number)
        for number, system in turns(which, SYSTEMS, rounds)
    ]


def test_systems_take_turns_in_each_round() -> None:
    both = variant("both", "qsend", "notqmail", "postfix")
    assert turns(both, SYSTEMS, 2) == [
        (1, "qsend"), (1, "postfix"), (2, "qsend"), (2, "postfix"),
    ]  # fmt: skip
    assert turns(variant("limit", MACHINE), SYSTEMS, 1) == [(1, MACHINE)]


def test_what_was_stopped_is_run_again_whole_and_what_is_done_is_not() -> None:
    whole, cut, unseen = (variant(title, *SYSTEMS) for title in ("a", "b", "c"))
    had = outcomes(whole, 3) + outcomes(cut, 3)[:-1]
    chosen = [whole, cut, unseen]
    assert unfinished(chosen, SYSTEMS, 3, had) == [cut, unseen]
    assert unfinished(chosen, SYSTEMS, 3, ()) == chosen
