"""Which idle session is kept, taken, and sent away."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from qsend.core.smtptable import State
from qsend.sysio.smtppool import HOST_MAX, Pool

LEFT: list[str] = []


@dataclass(eq=False)
class Session:
    name: str
    address: str
    state: State = State.IDLE
    left: list[str] = field(default_factory=lambda: LEFT)

    def leave(self) -> None:
        self.left.append(self.name)


@pytest.fixture(autouse=True)
def nobody_left() -> None:
    LEFT.clear()


def test_last_one_put_is_taken_first() -> None:
    pool: Pool[Session] = Pool()
    old, new = Session("old", "a"), Session("new", "b")
    pool.put("x", old)
    pool.put("x", new)
    assert pool.take("y") is None
    assert pool.take("x") is new
    assert pool.take("x") is old
    assert pool.take("x") is None
    assert not LEFT


def test_session_that_the_peer_closed_is_not_taken() -> None:
    pool: Pool[Session] = Pool()
    pool.put("x", Session("gone", "a", State.CLOSED))
    assert pool.take("x") is None
    assert len(pool) == 0


def test_oldest_leaves_when_there_are_too_many() -> None:
    pool: Pool[Session] = Pool(3)
    for number in range(5):
        pool.put(number, Session(str(number), f"host{number}"))
    assert LEFT == ["0", "1"]
    assert [pool.take(number) is None for number in range(5)] == [True] * 2 + [
        False
    ] * 3


def test_host_of_many_destinations_keeps_few_sessions() -> None:
    pool: Pool[Session] = Pool()
    for number in range(HOST_MAX + 10):
        pool.put(number, Session(str(number), "large"))
        pool.put(f"other{number}", Session("", f"host{number}"))
    assert len(LEFT) == 10
    assert [str(number) for number in range(10)] == LEFT
    assert len(pool) == 2 * HOST_MAX + 10


def test_destination_keeps_all_of_its_own_sessions() -> None:
    pool: Pool[Session] = Pool()
    for _ in range(HOST_MAX * 3):
        pool.put("relay", Session("", "relay"))
    assert not LEFT
    assert len(pool) == HOST_MAX * 3


def test_all_leave() -> None:
    pool: Pool[Session] = Pool()
    pool.put("x", Session("x", "a"))
    pool.put("y", Session("y", "a"))
    pool.leave_all()
    assert (LEFT, len(pool)) == (["x", "y"], 0)
    assert pool.take("x") is None
