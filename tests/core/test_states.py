"""The state table is total, and its transitions survive every crash."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from qsend.core.states import (
    FILES,
    PATTERNS,
    TRANSITIONS,
    Do,
    Fate,
    State,
    Transition,
    classify,
    fate,
)

S1, S2, S3, S4, S5 = State
EVERY = [
    frozenset(name for name, there in zip(FILES, bits, strict=True) if there)
    for bits in itertools.product([False, True], repeat=len(FILES))
]


def of(state: State) -> list[frozenset[str]]:
    return [present for present in EVERY if classify(present) is state]


@pytest.mark.parametrize(
    ("state", "count"), [(S1, 1), (S2, 1), (S3, 1), (S4, 16), (S5, 8), (None, 101)]
)
def test_classify_of_all_128_combinations(state: State | None, count: int) -> None:
    assert len([each for each in EVERY if classify(each) is state]) == count


def test_patterns_exclude_one_another() -> None:
    for present in EVERY:
        matching = [
            state
            for state, pattern in PATTERNS.items()
            if all(
                sign == "?" or (sign == "+") == (name in present)
                for name, sign in zip(FILES, pattern, strict=True)
            )
        ]
        assert len(matching) <= 1


@pytest.mark.parametrize(
    ("state", "want"),
    [
        (S1, Fate.NONE),
        (S2, Fate.SWEEP),
        (S3, Fate.SWEEP),
        (S4, Fate.PREPROCESS),
        (S5, Fate.DELIVER),
    ],
)
def test_fate_of_each_state_is_one(state: State, want: Fate) -> None:
    assert {fate(present) for present in of(state)} == {want}


def test_fate_is_total_and_never_forgets_a_queued_message() -> None:
    for present in EVERY:
        found = fate(present)
        if present & {"todo", "info"}:
            assert found in (Fate.PREPROCESS, Fate.DELIVER, Fate.ASIDE)
        if found in (Fate.PREPROCESS, Fate.DELIVER, Fate.SWEEP):
            assert "mess" in present
        assert (found is Fate.NONE) == (present == frozenset())


def starts(transition: Transition) -> Iterator[frozenset[str]]:
    return (
        present
        for present in of(transition.before)
        if not present & transition.only_without and present >= transition.only_with
    )


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda t: t.what)
def test_transition_killed_after_any_step_leaves_a_state(
    transition: Transition,
) -> None:
    for start in starts(transition):
        present = start
        for step in transition.steps:
            present = step.after(present)
            assert classify(present) is not None, f"{sorted(start)}: {step}"
        assert classify(present) is transition.after, sorted(start)


def test_transitions_are_those_of_the_queue_format_and_ours() -> None:
    pairs = {(each.before, each.after) for each in TRANSITIONS}
    qmail = {
        (S1, S2), (S2, S3), (S3, S4), (S3, S1), (S2, S1), (S4, S4), (S4, S5),
        (S5, S5), (S5, S2),
    }  # fmt: skip
    assert pairs == qmail | {(S4, S1)}


# power cuts: what is on the disk when only synced steps are sure


@dataclass(slots=True)
class Disk:
    """Names and contents as far as they are durable, and what may be."""

    durable: frozenset[str] = frozenset()
    pending: list[tuple[str, bool]] = field(default_factory=list)
    dirty: set[str] = field(default_factory=set)

    def step(self, do: Do, target: str) -> None:
        match do:
            case Do.CREATE | Do.LINK | Do.UNLINK:
                self.pending.append((target, do is not Do.UNLINK))
                if do is Do.LINK and target == "mess":
                    self.dirty.add(target)
            case Do.WRITE:
                self.dirty.add(target)
            case Do.SYNC_FILE:
                self.dirty.discard(target)
            case Do.SYNC_NAME:
                for name, exists in self.pending:
                    if name == target:
                        self.durable -= {name}
                        self.durable |= {name} if exists else frozenset()
                self.pending = [each for each in self.pending if each[0] != target]

    def cuts(self) -> Iterator[frozenset[str]]:
        """Every set of files a power cut may leave now.

        Changes of one name happen in order; of different names, in any.
        """
        ways = []
        for name in FILES:
            changes = [exists for each, exists in self.pending if each == name]
            ways.append({name in self.durable, *changes})
        for choice in itertools.product(*ways):
            yield frozenset(
                name for name, there in zip(FILES, choice, strict=True) if there
            )


def the(before: State, after: State, word: str) -> Transition:
    [found] = [
        each
        for each in TRANSITIONS
        if (each.before, each.after) == (before, after) and word in each.what
    ]
    return found


ACCEPT = [the(S1, S2, ""), the(S2, S3, ""), the(S3, S4, "")]
PREPROCESS = [the(S4, S4, ""), the(S4, S5, "")]
END = [the(S5, S2, ""), the(S2, S1, "elimination")]
LIVES = {
    "delivered from todo": [*ACCEPT, the(S4, S1, "")],
    "delivered later": [
        *ACCEPT, *PREPROCESS, the(S5, S5, "succeeded"), the(S5, S5, "channel"), *END,
    ],
    "bounced": [
        *ACCEPT, *PREPROCESS, the(S5, S5, "failed"), the(S5, S5, "channel"),
        the(S5, S5, "bounce is queued"), *END,
    ],
}  # fmt: skip


@pytest.mark.parametrize("life", LIVES)
def test_power_cut_at_any_step_of_a_life_loses_nothing(life: str) -> None:
    disk = Disk()
    accepted = over = False
    for transition in LIVES[life]:
        ending = transition.commits.startswith(("the end", "delivery"))
        # This message has remote recipients only.
        for step in (each for each in transition.steps if each.target != "local"):
            over |= ending
            disk.step(step.do, step.target)
            for present in disk.cuts():
                found = fate(present)
                assert found is not Fate.ASIDE, (step, sorted(present))
                if accepted and not over:
                    assert found in (Fate.PREPROCESS, Fate.DELIVER), sorted(present)
                if found is Fate.DELIVER and not over:
                    assert not disk.dirty & {"mess", "info"}, str(step)
        accepted |= transition.commits.startswith("acceptance")
        if accepted and not over:
            assert not disk.dirty & {"mess", "intd"}
    assert over
    # Only the removal of mess/N is never waited for: at worst the sweep has it.
    assert {fate(present) for present in disk.cuts()} == {Fate.NONE, Fate.SWEEP}
