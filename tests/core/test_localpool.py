"""Which child gets which delivery; who waits; who ends."""

from __future__ import annotations

import random

import pytest

from qsend.core.errors import RemoteProtocolError
from qsend.core.localpool import (
    IDLE_S,
    ChildId,
    End,
    Fork,
    Give,
    LocalPool,
    Step,
    Work,
)
from qsend.core.model import Account, DelId


def work(delid: int, uid: int = 1, home: bytes = b"", alone: bool = False) -> Work:
    return Work(
        delid=DelId(delid),
        account=Account(uid=uid, gid=uid),
        home=home or b"/h%d" % uid,
        alone=alone,
    )


def fork(child: int, uid: int = 1) -> Fork:
    return Fork(child=ChildId(child), account=Account(uid=uid, gid=uid))


def give(child: int, delid: int) -> Give:
    return Give(child=ChildId(child), delid=DelId(delid))


def end(child: int) -> End:
    return End(child=ChildId(child))


def done(pool: LocalPool, child: int, delid: int, now: float = 0.0) -> list[Step]:
    return pool.done(ChildId(child), DelId(delid), now)


def test_add_reuses_the_child_of_the_account() -> None:
    pool = LocalPool(10)
    assert pool.add(work(1)) == [fork(1), give(1, 1)]
    assert pool.add(work(2)) == [give(1, 2)]
    assert done(pool, 1, 1) == []
    assert done(pool, 1, 2) == []
    assert pool.add(work(3)) == [give(1, 3)]


def test_add_never_mixes_accounts_even_with_one_home() -> None:
    pool = LocalPool(10)
    pool.add(work(1, uid=1, home=b"/mail"))
    same_uid = Work(
        delid=DelId(2), account=Account(uid=1, gid=9), home=b"/mail", alone=False
    )
    assert pool.add(same_uid) == [
        Fork(child=ChildId(2), account=same_uid.account),
        give(2, 2),
    ]


def test_add_beyond_the_limit_of_a_home_waits_in_order() -> None:
    pool = LocalPool(2)
    pool.add(work(1))
    pool.add(work(2))
    assert pool.add(work(3)) == []
    assert pool.add(work(4)) == []
    # Another home of the same account has a limit of its own.
    assert pool.add(work(5, home=b"/other")) == [give(1, 5)]
    assert done(pool, 1, 2) == [give(1, 3)]
    assert done(pool, 1, 1) == [give(1, 4)]


def test_limit_of_zero_counts_as_one() -> None:
    pool = LocalPool(0)
    assert pool.add(work(1)) == [fork(1), give(1, 1)]
    assert pool.add(work(2)) == []


def test_alone_has_a_child_of_its_own_that_ends_with_it() -> None:
    pool = LocalPool(10)
    pool.add(work(1))
    assert pool.add(work(2, alone=True)) == [fork(2), give(2, 2)]
    assert pool.add(work(3)) == [give(1, 3)]
    assert done(pool, 2, 2) == [end(2)]
    assert pool.add(work(4, alone=True)) == [fork(3), give(3, 4)]


def test_done_by_the_wrong_child_or_twice_is_refused() -> None:
    pool = LocalPool(10)
    pool.add(work(1, uid=1))
    pool.add(work(2, uid=2))
    for child, delid in ((1, 2), (1, 3), (9, 1)):
        with pytest.raises(RemoteProtocolError):
            done(pool, child, delid)
    done(pool, 1, 1)
    with pytest.raises(RemoteProtocolError):
        done(pool, 1, 1)


def test_lost_gives_the_deliveries_back_and_starts_what_waited() -> None:
    pool = LocalPool(1)
    pool.add(work(1))
    pool.add(work(2, home=b"/b"))
    pool.add(work(3))
    delids, steps = pool.lost(ChildId(1))
    assert delids == [1, 2]
    assert steps == [fork(2), give(2, 3)]
    assert pool.lost(ChildId(1)) == ([], [])


def test_least_recently_used_idle_child_makes_room() -> None:
    pool = LocalPool(10, kept=3)
    for uid in (1, 2, 3):
        pool.add(work(uid, uid=uid))
    for uid in (3, 1, 2):
        done(pool, uid, uid)
    pool.add(work(4, uid=1))
    assert pool.add(work(5, uid=4)) == [end(2), fork(4, 4), give(4, 5)]
    assert pool.children == 3


def test_busy_children_may_exceed_the_number_and_end_when_idle() -> None:
    pool = LocalPool(10, kept=2)
    for uid in (1, 2, 3):
        pool.add(work(uid, uid=uid))
    assert pool.children == 3
    assert done(pool, 2, 2) == [end(2)]
    assert done(pool, 1, 1) == []


def test_expire_ends_children_idle_for_long() -> None:
    pool = LocalPool(10)
    pool.add(work(1, uid=1))
    pool.add(work(2, uid=2))
    pool.add(work(3, uid=3))
    assert pool.next_expiry_mono() is None
    done(pool, 1, 1, 100.0)
    done(pool, 2, 2, 101.0)
    assert pool.next_expiry_mono() == 100.0 + IDLE_S
    assert pool.expire(100.5 + IDLE_S) == [end(1)]
    assert pool.next_expiry_mono() == 101.0 + IDLE_S
    assert pool.expire(1000.0) == [end(2)]
    assert pool.next_expiry_mono() is None


def test_retire_ends_idle_children_now_and_busy_ones_after_their_work() -> None:
    pool = LocalPool(1)
    pool.add(work(1, uid=1))
    pool.add(work(2, uid=2))
    pool.add(work(3, uid=2))
    done(pool, 1, 1)
    assert pool.retire(2) == [end(1), fork(3, 2), give(3, 3)]
    assert pool.add(work(4, uid=1)) == [fork(4, 1), give(4, 4)]
    assert done(pool, 2, 2) == [end(2)]
    assert done(pool, 3, 3) == []


def test_cancel_waiting_forgets_only_what_has_no_child() -> None:
    pool = LocalPool(1)
    pool.add(work(1))
    pool.add(work(2))
    pool.add(work(3))
    assert pool.cancel_waiting() == [2, 3]
    assert done(pool, 1, 1) == []
    assert pool.add(work(4)) == [give(1, 4)]


def test_done_whose_child_makes_room_for_a_suspect_ends_it_once() -> None:
    pool = LocalPool(1, kept=1)
    pool.add(work(1))
    pool.add(work(2, alone=True))
    assert done(pool, 1, 1) == [end(1), fork(2), give(2, 2)]
    assert pool.lost(ChildId(1)) == ([], [])


class Life:
    """Runs a pool, and checks every step against what must hold."""

    def __init__(self, pool: LocalPool) -> None:
        self.pool = pool
        self.running: dict[DelId, ChildId] = {}
        self.homes: dict[DelId, bytes] = {}
        self.children: set[ChildId] = set()
        self.ended = 0

    def take(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case Fork(child=child):
                    self.children.add(child)
                case Give(child=child, delid=delid):
                    assert child in self.children
                    assert delid not in self.running
                    self.running[delid] = child
                case End(child=child):
                    self.children.remove(child)
                    assert child not in self.running.values()
        for home in set(self.homes.values()):
            assert sum(self.homes[each] == home for each in self.running) <= 2

    def add(self, item: Work) -> None:
        self.homes[item.delid] = item.home
        self.take(self.pool.add(item))

    def finish(self, delid: DelId, now: float) -> None:
        child = self.running.pop(delid)
        self.ended += 1
        self.take(self.pool.done(child, delid, now))

    def kill(self, child: ChildId) -> None:
        delids, steps = self.pool.lost(child)
        assert {each for each in self.running if self.running[each] == child} == set(
            delids
        )
        self.children.remove(child)
        for each in delids:
            del self.running[each]
        self.ended += len(delids)
        self.take(steps)


def test_random_life_loses_and_repeats_nothing() -> None:
    rng = random.Random(6)
    life = Life(LocalPool(2, kept=3))
    for delid in range(1, 2001):
        life.add(work(delid, uid=rng.randrange(1, 6), alone=rng.random() < 0.1))
        while len(life.running) > rng.randrange(0, 12):
            victim = rng.choice(sorted(life.running))
            if rng.random() < 0.9:
                life.finish(victim, float(delid))
            else:
                life.kill(life.running[victim])
        if rng.random() < 0.02:
            life.take(life.pool.retire(2))
        life.take(life.pool.expire(float(delid)))
    waiting = len(life.pool.cancel_waiting())
    assert life.ended + len(life.running) + waiting == 2000
    assert life.pool.children == len(life.children)
