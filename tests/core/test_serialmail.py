"""What results mean for a message, in every combination."""

from __future__ import annotations

import pytest

from qsend.core.model import Letter
from qsend.core.serialmail import ROUNDS_MAX, Fate, Progress, judge


@pytest.mark.parametrize(
    ("letter", "is_too_old", "bounces", "fate", "words", "is_expired"),
    [
        (Letter.SUCCESS, False, False, Fate.REMOVE, "succeeded", False),
        (Letter.SUCCESS, True, True, Fate.REMOVE, "succeeded", False),
        (Letter.DEFERRAL, False, False, Fate.LEAVE, "failed temporarily", False),
        (Letter.DEFERRAL, False, True, Fate.LEAVE, "failed temporarily", False),
        (Letter.DEFERRAL, True, False, Fate.LEAVE, "failed", True),
        (Letter.DEFERRAL, True, True, Fate.BOUNCE, "bounced", True),
        (Letter.FAILURE, False, False, Fate.LEAVE, "failed", False),
        (Letter.FAILURE, True, False, Fate.LEAVE, "failed", False),
        (Letter.FAILURE, False, True, Fate.BOUNCE, "bounced", False),
        (Letter.FAILURE, True, True, Fate.BOUNCE, "bounced", False),
    ],
)
def test_result_decides_what_becomes_of_the_message(
    letter: Letter,
    is_too_old: bool,
    bounces: bool,
    fate: Fate,
    words: str,
    is_expired: bool,
) -> None:
    verdict = judge(letter, is_too_old=is_too_old, bounces=bounces)
    assert (verdict.fate, verdict.words) == (fate, words)
    assert verdict.is_expired is is_expired


def test_three_rounds_without_a_result_are_enough() -> None:
    progress = Progress()
    for _ in range(ROUNDS_MAX):
        assert not progress.is_hopeless
        progress.begin_round()
    assert progress.is_hopeless


def test_any_result_begins_the_count_anew() -> None:
    progress = Progress()
    for _ in range(10):
        progress.begin_round()
        progress.begin_round()
        progress.note_result()
        assert not progress.is_hopeless
