"""No crash of send loses a recipient: every run is cut after every disk operation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qsend.core.lookups import Listing, Locality, Stored
from qsend.core.model import Channel, Letter
from qsend.core.users import Trouble
from tests.fakes import FakeQueue
from tests.sim import DEFERRAL, DOWN, FAILURE, NOW, SUCCESS, WEEK, Event, Outcome, Sim

ENVELOPES = {
    "one local": [b"a@here"],
    "one remote": [b"a@x"],
    "both channels": [b"a@here", b"b@x"],
    "several": [b"a@here", b"b@x", b"c@y", b"d@x"],
    "list": [b"r%d@x" % n for n in range(25)],
    "nobody": [],
}


def envelope(recips: list[bytes]) -> bytes:
    records = [b"u0", b"p1", b"Fme@home", *(b"T" + recip for recip in recips)]
    return b"".join(record + b"\0" for record in records)


def all_succeed(_recip: bytes) -> Outcome:
    return SUCCESS


def all_fail(_recip: bytes) -> Outcome:
    return FAILURE


def mixed(recip: bytes) -> Outcome:
    return {b"a": SUCCESS, b"b": FAILURE, b"c": DEFERRAL}.get(recip[:1], SUCCESS)


def accounted(events: list[Event], ops: int) -> set[bytes]:
    return {event.recip for event in events if event.ops <= ops}


def finish(
    queue: FakeQueue,
    outcome: Callable[[bytes], Outcome],
    places: Callable[[bytes], Locality] | None = None,
) -> Sim:
    """A second life in which whatever is left is attempted and ends."""
    sim = Sim(queue, outcome, now=NOW + 2, places=places)
    sim.run()
    if sim.manager.dues and any(len(dues) for dues in sim.manager.dues.values()):
        sim.clocks.wall += WEEK + 10**6
        sim.run()
    return sim


@pytest.mark.parametrize("outcome", [all_succeed, all_fail, mixed])
@pytest.mark.parametrize("name", ENVELOPES)
@pytest.mark.parametrize("cut", ["kill", "power"])
def test_recipients_survive_a_cut_anywhere(
    name: str, outcome: Callable[[bytes], Outcome], cut: str
) -> None:
    recips = ENVELOPES[name]
    queue = FakeQueue()
    queue.inject(b"Subject: x\n\nbody\n", envelope(recips))
    begin = len(queue.disk.ops)
    first = Sim(queue, outcome)
    first.run()
    for ops in range(begin, len(queue.disk.ops) + 1):
        left = queue.after_kill(ops) if cut == "kill" else queue.after_power_cut(ops)
        second = finish(left, outcome)
        for recip in recips:
            done = recip in accounted(first.delivered, ops) | accounted(
                second.delivered, 10**9
            )
            told = recip in accounted(first.bounced, ops) | accounted(
                second.bounced, 10**9
            )
            assert done or told, (
                f"{recip!r} lost after {ops}: {queue.disk.ops[ops - 1]}"
            )
            assert not (done and told), f"{recip!r} both after {ops}"
        kinds = {path.partition("/")[0] for path in left.disk.files()}
        assert kinds <= {"lock", "mess"}, (ops, kinds)
        assert left.disk.open_count() < 120


STORED: dict[bytes, Locality] = {
    b"geo@virt": Stored(address=b"a-geo@virt"),
    b"c@virt": Stored(address=b"c@virt"),
    b"x@virt": Listing.HOST,
}
"""What the database says; of other addresses it knows nothing."""
VIRTUAL = {
    "found": [b"geo@virt"],
    "nobody": [b"x@virt"],
    "all kinds": [b"x@virt", b"geo@virt", b"a@here", b"c@virt", b"b@x"],
    "list": [b"x@virt", *(b"r%d@x" % n for n in range(20)), b"geo@virt"],
}


def place(address: bytes) -> Locality:
    return STORED.get(address, Listing.NONE)


@pytest.mark.parametrize("outcome", [all_succeed, all_fail, mixed])
@pytest.mark.parametrize("name", VIRTUAL)
@pytest.mark.parametrize("cut", ["kill", "power"])
def test_virtual_recipients_survive_a_cut_anywhere(
    name: str, outcome: Callable[[bytes], Outcome], cut: str
) -> None:
    """Delivered as stored, bounced as written; who does not exist never leaves."""
    recips = VIRTUAL[name]
    queue = FakeQueue()
    queue.inject(b"Subject: x\n\nbody\n", envelope(recips))
    begin = len(queue.disk.ops)
    first = Sim(queue, outcome, places=place)
    first.run()
    for ops in range(begin, len(queue.disk.ops) + 1):
        left = queue.after_kill(ops) if cut == "kill" else queue.after_power_cut(ops)
        second = finish(left, outcome, place)
        for recip in recips:
            known = place(recip)
            stored = known.address if isinstance(known, Stored) else recip
            done = stored in accounted(first.delivered, ops) | accounted(
                second.delivered, 10**9
            )
            told = recip in accounted(first.bounced, ops) | accounted(
                second.bounced, 10**9
            )
            assert done != told, f"{recip!r} after {ops}: {queue.disk.ops[ops - 1]}"
            assert told or known is not Listing.HOST
        kinds = {path.partition("/")[0] for path in left.disk.files()}
        assert kinds <= {"lock", "mess"}, (ops, kinds)


@pytest.mark.parametrize("cut", ["kill", "power"])
def test_a_message_whose_recipients_are_looked_up_stays_in_todo(cut: str) -> None:
    """Asking, and being told nothing, changes no file; the next life asks again."""
    queue = FakeQueue()
    queue.inject(b"x\n", envelope([b"geo@virt", b"a@here"]))
    begin = len(queue.disk.ops)
    for trouble in (DOWN, b"MySQL misconfiguration"):
        sim = Sim(queue, all_succeed, places=lambda _: Trouble(text=trouble))  # noqa: B023
        sim.hold_places = True
        for _ in range(3):
            sim.step()
            assert len(sim.asked) == 1
        sim.hold_places = False
        sim.run()
        assert len(queue.disk.ops) == begin
        assert sim.manager.backlog_size == (1 if trouble == DOWN else 0)
    left = queue.after_kill() if cut == "kill" else queue.after_power_cut()
    last = finish(left, all_succeed, place)
    assert {event.recip for event in last.delivered} == {b"a-geo@virt", b"a@here"}


def test_the_harness_sees_a_loss() -> None:
    """Were the marks made before the bounce was noted, the cut would show it."""
    queue = FakeQueue()
    messid = queue.inject(b"x\n", envelope([b"b@x"]))
    queue.disk.unlink(str(messid), dir_fd=queue.dir_fd("todo"))
    sim = finish(queue.after_kill(), all_succeed)
    assert not sim.delivered
    assert not sim.bounced


def test_outcomes_of_the_first_attempt_survive_in_the_marks() -> None:
    queue = FakeQueue()
    messid = queue.inject(b"x\n", envelope([b"a@x", b"c@x", b"c@y"]))
    sim = Sim(queue, mixed)
    sim.run()
    assert queue.read_recips(Channel.REMOTE, messid) == b"Da@x\0Tc@x\0Tc@y\0"
    assert [letter for letter, _, _ in map(mixed, [b"a", b"c"])] == [
        Letter.SUCCESS,
        Letter.DEFERRAL,
    ]
