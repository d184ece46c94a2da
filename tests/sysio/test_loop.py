from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from qsend.sysio import clock
from qsend.sysio.loop import Loop, Wake

LIMIT_S = 20.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_a_turn_comes_by_the_earliest_time_asked_for(loop: Loop) -> None:
    wake = Wake(loop)
    began_mono = clock.mono()
    wake.by(began_mono + 3600)
    wake.by(began_mono + 0.05)
    wake.by(began_mono + 3600)
    loop.turn(LIMIT_S)
    assert 0.05 <= clock.mono() - began_mono < LIMIT_S


def test_a_time_can_be_asked_for_again_after_the_turn(loop: Loop) -> None:
    wake = Wake(loop)
    for _ in range(3):
        began_mono = clock.mono()
        wake.by(began_mono + 0.01)
        loop.turn(LIMIT_S)
        assert 0.01 <= clock.mono() - began_mono < LIMIT_S


def test_a_time_that_is_over_brings_a_turn_at_once(loop: Loop) -> None:
    wake = Wake(loop)
    wake.by(clock.mono() - 5)
    wake.by(math.nextafter(clock.mono(), math.inf))
    began_mono = clock.mono()
    loop.turn(LIMIT_S)
    assert clock.mono() - began_mono < LIMIT_S
