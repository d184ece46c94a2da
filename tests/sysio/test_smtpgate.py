"""Who waits where a destination takes no more sessions."""

from __future__ import annotations

from dataclasses import dataclass

from qsend.core.model import Letter
from qsend.core.smtptypes import Answer
from qsend.sysio.smtpgate import BUSY_S, PAUSE_S, SCARCE_S, WAIT_S, Gates

FULL = Answer(letter=Letter.DEFERRAL, text=b"421 full\n")


@dataclass(eq=False)
class Work:
    name: str
    refusal: Answer | None = None
    since_mono: float = 0.0


def names(works: object) -> list[str]:
    assert hasattr(works, "__iter__")
    return [work.name for work in works]


def test_nobody_waits_where_nobody_was_refused() -> None:
    gates: Gates[Work] = Gates()
    gates.opened("k")
    assert not gates.join("k", Work("a"), 0.0)
    assert gates.next("k") is None
    assert gates.waited_for() == []
    assert not gates.is_scarce("k", 0.0)


def test_refused_one_is_first_and_who_comes_joins_behind() -> None:
    gates: Gates[Work] = Gates()
    a, b, c = Work("a"), Work("b"), Work("c")
    gates.refused("k", a, FULL, 1.0)
    assert gates.join("k", b, 1.5)
    assert b.refusal is FULL
    assert gates.next("k") is a
    gates.refused("k", a, FULL, 5.0)  # looked for room, found none
    assert (a.since_mono, b.since_mono) == (1.0, 1.5)
    assert gates.join("k", c, 5.0 + 2 * PAUSE_S)  # others wait already
    assert not gates.join("other", Work("d"), 5.0)
    assert [gates.next("k") for _ in range(4)] == [a, b, c, None]


def test_full_for_a_moment_and_scarce_for_longer() -> None:
    gates: Gates[Work] = Gates()
    gates.opened("k")
    gates.refused("k", Work("a"), FULL, 10.0)
    gates.next("k")
    assert gates.is_full("k", 10.0 + PAUSE_S - 0.1)
    assert not gates.is_full("k", 10.0 + PAUSE_S)
    assert gates.is_scarce("k", 10.0 + SCARCE_S - 0.1)
    assert not gates.is_scarce("k", 10.0 + SCARCE_S)


def test_wait_is_short_without_a_session_and_longer_with_one() -> None:
    gates: Gates[Work] = Gates()
    gates.refused("k", Work("a"), FULL, 0.0)
    assert gates.join("k", Work("b"), 1.0 - 0.1)
    gates.opened("k")
    assert names(gates.overdue("k", BUSY_S, BUSY_S)) == []
    gates.closed("k")
    assert names(gates.overdue("k", BUSY_S, BUSY_S)) == ["a"]
    gates.opened("k")
    assert names(gates.overdue("k", WAIT_S, BUSY_S)) == []
    assert names(gates.overdue("k", WAIT_S + 1.0, BUSY_S)) == ["b"]
    assert gates.sessions("k") == 1


def test_destination_without_sessions_and_waiting_is_forgotten() -> None:
    gates: Gates[Work] = Gates()
    gates.opened("k")
    gates.refused("k", Work("a"), FULL, 0.0)
    gates.closed("k")
    assert gates.waited_for() == ["k"]
    gates.next("k")
    assert gates.waited_for() == []
    assert not gates.is_scarce("k", 0.0)
    assert gates.sessions("k") == 0
