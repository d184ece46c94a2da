"""send with a database: what it asks, what waits, and what goes on meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qsend.core.lookups import Listing, Locality, Stored
from qsend.core.model import Cause, Letter, MessId
from qsend.core.operator import resolve
from qsend.core.reading import FIRST_MAX
from qsend.core.users import Trouble
from tests.fakes import FakeQueue
from tests.sim import DOWN, FAILURE, NOW, SUCCESS, Outcome, Sim


def envelope(*recips: bytes) -> bytes:
    records = [b"u0", b"p1", b"Fme@home", *(b"T" + recip for recip in recips)]
    return b"".join(record + b"\0" for record in records)


def inject(queue: FakeQueue, *recips: bytes) -> MessId:
    return queue.inject(b"x\n", envelope(*recips))


def succeed(_recip: bytes) -> Outcome:
    return SUCCESS


def down(_address: bytes) -> Locality:
    return Trouble(text=DOWN)


def nothing(_address: bytes) -> Locality:
    return Listing.NONE


def delivered(sim: Sim) -> list[bytes]:
    return sorted(event.recip for event in sim.delivered)


def test_each_address_is_asked_once_as_it_is_qualified() -> None:
    queue = FakeQueue()
    inject(queue, b"a@x", b"b", b"a@x", b"A@X")
    sim = Sim(queue, succeed, places=nothing)
    sim.hold_places = True
    sim.step()
    assert [asked for asked, _ in sim.asked] == [[b"a@x", b"b@here", b"A@X"]]
    sim.hold_places = False
    sim.run()
    assert delivered(sim) == [b"A@X", b"a@x", b"a@x", b"b@here"]


def test_other_mail_does_not_wait_for_an_answer() -> None:
    queue = FakeQueue()
    inject(queue, b"slow@x")
    inject(queue, b"quick@x")
    sim = Sim(queue, succeed, places=nothing)
    sim.hold_places = True
    sim.step()
    assert len(sim.asked) == 2
    addresses, done = sim.asked.pop()
    assert addresses == [b"quick@x"]
    done({b"quick@x": Listing.NONE})
    sim.run_until(lambda: delivered(sim) == [b"quick@x"])
    assert sim.manager.backlog_size == 1


def test_mail_waits_in_todo_and_goes_on_when_the_database_is_back() -> None:
    queue = FakeQueue()
    numbers = [inject(queue, b"v%d@virt" % n) for n in range(60)]
    known: set[bytes] = {b"v7@virt"}
    sim = Sim(
        queue,
        succeed,
        places=lambda address: Listing.NONE if address in known else down(address),
    )
    sim.run()
    # What could be answered all the same was delivered; the rest is untouched.
    assert delivered(sim) == [b"v7@virt"]
    assert sim.manager.backlog_size == 59
    known.update(b"v%d@virt" % n for n in range(60))
    for messid in numbers:
        sim.manager.known(messid)
    resolve(sim.manager, NOW)
    sim.run()
    assert len(delivered(sim)) == 60
    assert sim.manager.backlog_size == 0


def test_a_row_that_cannot_be_meant_keeps_one_message_for_a_while() -> None:
    queue = FakeQueue()
    inject(queue, b"odd@virt")
    inject(queue, b"even@virt")
    trouble = {b"odd@virt": Trouble(text=b"MySQL misconfiguration: no username")}
    sim = Sim(queue, succeed, places=lambda each: trouble.get(each, Listing.NONE))
    sim.run()
    assert delivered(sim) == [b"even@virt"]
    [line] = sim.lines(b"warning")
    assert b"MySQL misconfiguration: no username; will try again later" in line
    trouble.clear()
    sim.clocks.wall += 200
    sim.run()
    assert delivered(sim) == [b"even@virt", b"odd@virt"]


def test_no_more_is_asked_at_once_than_may_be_attempted() -> None:
    queue = FakeQueue()
    for n in range(FIRST_MAX + 30):
        inject(queue, b"v%d@virt" % n)
    sim = Sim(queue, succeed, places=nothing)
    sim.hold_places = True
    for _ in range(40):
        sim.step()
    assert len(sim.asked) == FIRST_MAX
    assert sim.manager.backlog_size == FIRST_MAX + 30
    sim.hold_places = False
    sim.run()
    assert len(sim.delivered) == FIRST_MAX + 30


def test_answers_that_come_after_the_end_of_send_change_nothing() -> None:
    queue = FakeQueue()
    inject(queue, b"v@virt")
    before = len(queue.disk.ops)
    sim = Sim(queue, succeed, places=nothing)
    sim.hold_places = True
    sim.step()
    sim.manager.stop()
    sim.answer_places()
    sim.run()
    assert (len(queue.disk.ops), sim.delivered) == (before, [])


def test_controls_that_change_meanwhile_are_asked_about_again() -> None:
    queue = FakeQueue()
    inject(queue, b"v")
    sim = Sim(queue, succeed, places=nothing)
    sim.hold_places = True
    sim.step()
    old = sim.loader.routing
    sim.loader.routing = replace(old, rules=replace(old.rules, envnoathost=b"other"))
    sim.answer_places()
    [(addresses, _)] = sim.asked
    assert addresses == [b"v@other"]


@pytest.mark.parametrize("later", [False, True])
def test_unknown_recipient_of_a_known_host_is_never_attempted(later: bool) -> None:
    """Also when it is read from disk again, in a channel that was held up."""
    queue = FakeQueue()
    inject(queue, b"gone@virt", b"geo@virt")

    def places(address: bytes) -> Locality:
        if address == b"geo@virt":
            return Stored(address=b"a-geo@virt")
        return Listing.HOST

    sim = Sim(queue, lambda _recip: FAILURE, places=places)
    if later:
        for channel in sim.manager.capacity:
            sim.manager.set_capacity(channel, 0)
        sim.run()
        sim.clocks.monotonic += 10
        sim.run()
        assert list(queue.list_info())
        assert sim.bounced == []
        sim = Sim(queue, lambda _recip: FAILURE, places=nothing)
    attempted: list[bytes] = []

    def fail(recip: bytes) -> Outcome:
        attempted.append(recip)
        return FAILURE

    sim.outcome = fail
    sim.run()
    assert attempted == [b"a-geo@virt"]
    assert {event.recip for event in sim.bounced} == {b"gone@virt", b"geo@virt"}
    assert len(sim.lines(b"delivery")) == 2
    assert any(b"(#5.1.1)" in line for line in sim.lines(b"delivery"))


def test_mail_deferred_for_want_of_a_user_lookup_goes_at_once_when_it_is_back() -> None:
    queue = FakeQueue()
    inject(queue, b"a@here")
    inject(queue, b"b@here")
    outcomes = {
        b"a@here": (Letter.DEFERRAL, b"no lookup\n", Cause.UNRESOLVED),
        b"b@here": (Letter.DEFERRAL, b"busy\n", Cause.NORMAL),
    }
    sim = Sim(queue, outcomes.__getitem__)
    sim.run()
    assert sim.delivered == []
    outcomes[b"a@here"] = outcomes[b"b@here"] = SUCCESS
    resolve(sim.manager, NOW)
    sim.run()
    assert delivered(sim) == [b"a@here"]
    sim.clocks.wall += 1000
    sim.run()
    assert delivered(sim) == [b"a@here", b"b@here"]
    assert not sim.manager.unresolved
