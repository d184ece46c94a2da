from __future__ import annotations

import pytest

from qsend.core.destinations import (
    PASSED_FROM,
    RECOUNT_S,
    STALL_S,
    UNPROVED_MAX,
    Destination,
    Destinations,
    spare_slots,
)
from qsend.core.model import MessId

SLOTS = 1000


def make(limit: int = 2) -> Destinations:
    return Destinations(lambda _key: limit)


def put(destinations: Destinations, key: bytes, *messids: int) -> None:
    for messid in messids:
        destinations.put(key, (MessId(messid), 0))


def proved(destinations: Destinations, key: bytes) -> Destination:
    """The destination, after one of its deliveries has ended well."""
    destination = destinations.get(key)
    assert destination is not None
    destinations.prove(destination, 0.0)
    return destination


def starts(
    destinations: Destinations, count: int, now: float = 0.0, slots: int = SLOTS
) -> list[bytes]:
    """Keys in the order in which up to `count` attempts would begin."""
    keys = []
    for _ in range(count):
        free = slots - sum(each.running for each in destinations)
        ready = destinations.next_ready(now, free, slots) if free else None
        if ready is None:
            break
        destinations.take(ready, 1)
        keys.append(ready.key)
    return keys


def test_free_slots_go_round_the_destinations() -> None:
    destinations = make(limit=10)
    put(destinations, b"big", *range(1, 9))
    put(destinations, b"small", 20, 21)
    proved(destinations, b"big")
    assert starts(destinations, 5) == [b"big", b"small", b"big", b"small", b"big"]


def test_destination_at_its_limit_waits_for_a_release() -> None:
    destinations = make(limit=1)
    put(destinations, b"one", 1, 2)
    assert starts(destinations, 5) == [b"one"]
    one = destinations.get(b"one")
    assert one is not None
    destinations.release(one)
    assert starts(destinations, 5) == [b"one"]
    assert destinations.waiting == 0


def test_recipients_of_one_message_are_taken_together() -> None:
    destinations = make()
    for offset in range(5):
        destinations.put(b"x", (MessId(7), offset))
    put(destinations, b"x", 8)
    ready = destinations.next_ready(0, SLOTS, SLOTS)
    assert ready is not None
    assert destinations.take(ready, 3) == [(7, 0), (7, 1), (7, 2)]
    assert destinations.take(ready, 100) == [(7, 3), (7, 4)]
    assert destinations.take(ready, 100) == [(8, 0)]


def test_after_a_failure_only_one_attempt_probes() -> None:
    destinations = make(limit=5)
    put(destinations, b"sick", *range(1, 9))
    ready = destinations.next_ready(0, SLOTS, SLOTS)
    assert ready is not None
    destinations.take(ready, 1)
    destinations.unreachable(ready, b"no", 0.0, 0)
    assert starts(destinations, 5) == []
    destinations.release(ready)
    assert starts(destinations, 5) == [b"sick"]


def test_two_counted_failures_make_a_destination_wait_and_others_go_on() -> None:
    destinations = make(limit=5)
    put(destinations, b"sick", 1, 2, 3)
    put(destinations, b"well", 4, 5)
    sick = destinations.get(b"sick")
    assert sick is not None
    destinations.unreachable(sick, b"no", 0.0, 0)
    destinations.unreachable(sick, b"no", RECOUNT_S - 1.0, 0)
    assert not sick.is_ill(RECOUNT_S - 1.0)
    destinations.unreachable(sick, b"still no", float(RECOUNT_S), 0)
    assert starts(destinations, 5, RECOUNT_S + 1.0) == [b"well", b"well"]
    over = RECOUNT_S + 60 * 64.0
    assert sick.is_ill(over - 1)
    destinations.wake(over)
    assert starts(destinations, 5, over) == [b"sick"]
    assert sick.error == b"still no"


def test_reached_destination_is_healthy_at_once() -> None:
    destinations = make(limit=3)
    put(destinations, b"sick", 1, 2, 3)
    sick = destinations.get(b"sick")
    assert sick is not None
    destinations.unreachable(sick, b"no", 0.0, 0)
    destinations.reached(sick)
    assert starts(destinations, 5) == [b"sick"] * 3


def test_held_destination_starts_nothing_until_released() -> None:
    destinations = make()
    destinations.hold(b"x", held=True)
    put(destinations, b"x", 1)
    assert starts(destinations, 5) == []
    destinations.hold(b"x", held=False)
    assert starts(destinations, 5) == [b"x"]


def test_idle_destinations_are_forgotten_ill_ones_are_not() -> None:
    destinations = make()
    put(destinations, b"idle", 1)
    put(destinations, b"sick", 2)
    for key in (b"idle", b"sick"):
        ready = destinations.get(key)
        assert ready is not None
        destinations.take(ready, 1)
        if key == b"sick":
            destinations.unreachable(ready, b"no", 0.0, 0)
        destinations.release(ready)
    destinations.forget_idle(1.0)
    assert destinations.get(b"idle") is None
    assert destinations.get(b"sick") is not None


def test_sifted_entries_keep_the_count() -> None:
    destinations = make()
    put(destinations, b"x", 1, 2, 3)
    x = destinations.get(b"x")
    assert x is not None
    destinations.sift(x, [entry for entry in x.waiting if entry[0] != 2])
    assert destinations.waiting == 2
    assert [messid for messid, _ in x.waiting] == [1, 3]


def test_destination_has_few_slots_beside_others_until_one_has_ended() -> None:
    destinations = make(limit=10)
    put(destinations, b"new", *range(1, 9))
    put(destinations, b"newer", *range(11, 19))
    keys = [b"new", b"newer"] * UNPROVED_MAX
    assert starts(destinations, 16) == keys
    new = proved(destinations, b"new")
    destinations.release(new)
    assert starts(destinations, 16) == [b"new"] * (8 - UNPROVED_MAX)
    assert starts(destinations, 16) == []


def test_destination_that_is_alone_has_all_its_slots_at_once() -> None:
    destinations = make(limit=10)
    put(destinations, b"alone", *range(1, 19))
    assert starts(destinations, 20) == [b"alone"] * 10
    for slots, spare in ((16, 4), (12, 3)):
        destinations = make(limit=20)
        put(destinations, b"alone", *range(1, 19))
        count = slots - spare
        assert starts(destinations, 20, slots=slots) == [b"alone"] * count


def test_destination_goes_on_when_the_others_have_nothing_left() -> None:
    destinations = make(limit=10)
    put(destinations, b"new", *range(1, 5))
    put(destinations, b"other", 11)
    assert starts(destinations, 9) == [b"new", b"other", b"new"]
    other = destinations.get(b"other")
    assert other is not None
    destinations.release(other)
    assert starts(destinations, 9) == [b"new", b"new"]


def test_unreachable_destination_has_to_be_proved_again() -> None:
    destinations = make(limit=10)
    put(destinations, b"x", *range(1, 9))
    put(destinations, b"y", 11)
    x = proved(destinations, b"x")
    assert starts(destinations, 5) == [b"x", b"y", b"x", b"x", b"x"]
    destinations.unreachable(x, b"no", 0.0, 0)
    destinations.cure(b"x")
    destinations.release(x)
    destinations.release(x)
    assert starts(destinations, 5) == []
    destinations.release(x)
    assert starts(destinations, 5) == [b"x"]


@pytest.mark.parametrize(
    ("slots", "spare"),
    [(0, 0), (1, 0), (2, 1), (3, 1), (7, 1), (8, 2), (20, 5), (400, 100), (2000, 100)],
)
def test_part_of_the_slots_is_spare(slots: int, spare: int) -> None:
    assert spare_slots(slots) == spare


def test_spare_slots_go_only_to_destinations_that_run_nothing() -> None:
    slots, spare = 20, 5
    destinations = make(limit=20)
    put(destinations, b"big", *range(1, 30))
    big = proved(destinations, b"big")
    assert starts(destinations, 99, slots=slots) == [b"big"] * (slots - spare)
    put(destinations, b"new", 50, 51)
    put(destinations, b"newer", 60)
    assert starts(destinations, 99, slots=slots) == [b"new", b"newer"]
    new = proved(destinations, b"new")
    destinations.release(new)
    assert starts(destinations, 99, slots=slots) == [b"new"]
    # More is free again: those that had to wait go on in turn.
    for _ in range(4):
        destinations.release(big)
    put(destinations, b"new", 52, 53)
    assert starts(destinations, 99, slots=slots) == [b"new", b"new", b"big"]


def test_slots_of_hosts_that_may_hang_are_spare_ones_in_use_but_for_a_rest() -> None:
    slots, rest = 20, 2
    destinations = make(limit=20)
    for number in range(5):
        put(destinations, b"%d" % number, 10 * number, 10 * number + 1)
    assert len(starts(destinations, 99, slots=slots)) == 10
    put(destinations, b"good", *range(100, 150))
    proved(destinations, b"good")
    assert starts(destinations, 99, slots=slots) == [b"good"] * (slots - 10 - rest)
    put(destinations, b"new", 200)
    assert starts(destinations, 99, slots=slots) == [b"new"]


def test_destination_that_waits_for_more_than_a_spare_slot_can_be_forgotten() -> None:
    destinations = make(limit=10)
    put(destinations, b"big", 1, 2)
    assert starts(destinations, 9, slots=2) == [b"big"]
    big = destinations.get(b"big")
    assert big is not None
    destinations.sift(big, [])
    destinations.release(big)
    destinations.forget_idle(0.0)
    assert destinations.get(b"big") is None
    assert starts(destinations, 1) == []
    put(destinations, b"big", 3)
    assert starts(destinations, 2, slots=2) == [b"big"]


def test_destination_that_waits_to_be_proved_can_be_forgotten() -> None:
    destinations = make(limit=10)
    put(destinations, b"big", 1, 2, 3)
    put(destinations, b"other", 11)
    assert starts(destinations, 9) == [b"big", b"other", b"big"]
    big = destinations.get(b"big")
    assert big is not None
    destinations.sift(big, [])
    destinations.release(big)
    destinations.release(big)
    destinations.forget_idle(0.0)
    assert destinations.get(b"big") is None
    assert starts(destinations, 1) == []
    put(destinations, b"big", 4)
    assert starts(destinations, 2) == [b"big"]


def test_mail_is_stuck_where_nothing_is_proved_while_others_take_mail() -> None:
    destinations = make(limit=20)
    put(destinations, b"new", *range(1, PASSED_FROM + UNPROVED_MAX + 1))
    put(destinations, b"good", 100)
    proved(destinations, b"good")
    assert not destinations.is_stuck(b"new", 0.0)
    assert starts(destinations, 3).count(b"new") == UNPROVED_MAX
    assert destinations.is_stuck(b"new", 0.0)
    proved(destinations, b"new")
    assert not destinations.is_stuck(b"new", 0.0)
    assert destinations.is_stuck(b"new", STALL_S)


def test_mail_is_not_stuck_before_anybody_has_taken_some() -> None:
    destinations = make(limit=20)
    put(destinations, b"new", *range(1, PASSED_FROM + UNPROVED_MAX + 1))
    starts(destinations, UNPROVED_MAX)
    assert not destinations.is_stuck(b"new", 0.0)
    assert destinations.is_stuck(b"new", STALL_S)
    starts(destinations, 1)
    proved(destinations, b"new")
    starts(destinations, 1)
    assert not destinations.is_stuck(b"new", STALL_S)  # too few wait


def test_mail_in_motion_is_what_waits_where_mail_is_taken() -> None:
    destinations = make(limit=20)
    put(destinations, b"new", 1, 2)
    assert destinations.in_motion(0.0) == 0
    put(destinations, b"good", *range(3, PASSED_FROM + 5))
    proved(destinations, b"good")
    assert destinations.in_motion(0.0) == PASSED_FROM + 2
    starts(destinations, 2)
    assert destinations.in_motion(STALL_S / 2) == PASSED_FROM + 1
    assert destinations.in_motion(STALL_S) == 0
    destinations.hold(b"good", held=True)
    assert destinations.in_motion(0.0) == 0
