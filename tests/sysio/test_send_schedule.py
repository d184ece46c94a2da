"""What send does with messages: first attempts, retries, parking, holds, ends."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import pytest

from qsend.core import operator
from qsend.core.destinations import RECOUNT_S, UNPROVED_MAX
from qsend.core.errors import LocalProtocolError
from qsend.core.lifecycle import FIRST_PARTIAL_S
from qsend.core.manager import GAVE_UP
from qsend.core.message import Phase
from qsend.core.model import Channel, MessId
from qsend.core.reading import FIRST_WAIT_S
from tests.fakes import FakeQueue
from tests.sim import (
    CHILD_LOST,
    CRASHED,
    DEFERRAL,
    FAILURE,
    MANGLED,
    NOW,
    SETTINGS,
    SUCCESS,
    UNREACHABLE,
    WEEK,
    Outcome,
    Sim,
)


def envelope(*recips: bytes, sender: bytes = b"me@home") -> bytes:
    records = [b"u7", b"p9", b"F" + sender, *(b"T" + recip for recip in recips)]
    return b"".join(record + b"\0" for record in records)


def queue_of(*envelopes: bytes) -> tuple[FakeQueue, list[MessId]]:
    queue = FakeQueue()
    return queue, [queue.inject(b"Subject: x\n\n", each) for each in envelopes]


class Script:
    """Outcomes that a test changes while it runs; `tried` lists the recipients."""

    def __init__(self, outcome: Outcome = SUCCESS) -> None:
        self.default = outcome
        self.by_recip: dict[bytes, Outcome] = {}
        self.tried: list[bytes] = []

    def __call__(self, recip: bytes) -> Outcome:
        self.tried.append(recip)
        return self.by_recip.get(recip, self.default)


def test_success_at_the_first_attempt_writes_nothing() -> None:
    queue, [messid] = queue_of(envelope(b"a@x", b"b@here"))
    begin = len(queue.disk.ops)
    sim = Sim(queue, Script())
    sim.run()
    assert not [op for op in queue.disk.ops[begin:] if op.kind == "create"]
    assert queue.present(messid) == frozenset()
    assert sim.log == [
        b"new msg %d\n" % messid,
        b"info msg %d: bytes 12 from <me@home> qp 9 uid 7\n" % messid,
        b"starting delivery 1: msg %d to local b@here\n" % messid,
        b"starting delivery 2: msg %d to remote a@x\n" % messid,
        b"delivery 1: success: ok/\n",
        b"delivery 2: success: ok/\n",
        b"end msg %d\n" % messid,
    ]


def test_message_without_recipients_ends_at_once() -> None:
    queue, [messid] = queue_of(envelope())
    sim = Sim(queue, Script())
    sim.run()
    assert queue.present(messid) == frozenset()
    assert sim.lines(b"end msg")


@pytest.mark.parametrize(("recip", "delay"), [(b"a@here", 100), (b"a@x", 400)])
def test_deferred_message_is_tried_again_when_due_and_not_before(
    recip: bytes, delay: int
) -> None:
    queue, [messid] = queue_of(envelope(recip))
    script = Script(DEFERRAL)
    sim = Sim(queue, script)
    sim.run()
    channel = Channel.LOCAL if recip.endswith(b"here") else Channel.REMOTE
    assert queue.due(channel, messid) == NOW + delay
    sim.clocks.wall = NOW + delay - 1
    sim.run()
    assert script.tried == [recip]
    script.default = SUCCESS
    sim.clocks.wall = NOW + delay
    sim.run()
    assert script.tried == [recip, recip]
    assert queue.present(messid) == frozenset()


def test_failed_recipient_bounces_only_after_todo_is_gone() -> None:
    queue, [messid] = queue_of(envelope(b"a@x", b"b@x"))
    script = Script()
    script.by_recip[b"b@x"] = FAILURE
    sim = Sim(queue, script)
    seen: list[frozenset[str]] = []
    while not queue.bounce_exists(messid):
        seen.append(queue.present(messid))
        sim.step()
    assert "todo" not in queue.present(messid)
    assert any("todo" in kinds for kinds in seen)
    sim.run()
    assert [event.recip for event in sim.bounced] == [b"b@x"]
    assert queue.present(messid) == frozenset()


def test_long_list_is_preprocessed_before_its_first_attempt() -> None:
    queue, [messid] = queue_of(envelope(*(b"r%d@x" % n for n in range(30))))
    sim = Sim(queue, Script())
    sim.hold_reports = True
    sim.step()
    assert not sim.started
    sim.run_until(lambda: bool(sim.started))
    assert queue.present(messid) == {"mess", "info", "remote"}
    sim.hold_reports = False
    sim.run()
    assert len(sim.delivered) == 30


def test_recipients_of_one_destination_share_an_attempt() -> None:
    queue, _ = queue_of(envelope(b"a@x", b"b@x", b"c@X", b"d@y"))
    sim = Sim(queue, Script())
    sim.run()
    assert [len(start.recips) for start in sim.started] == [3, 1]


def test_verp_sender_keeps_recipients_apart() -> None:
    queue, _ = queue_of(envelope(b"a@x", b"b@x", sender=b"l-owner-@h-@[]"))
    sim = Sim(queue, Script())
    sim.run()
    assert [len(start.recips) for start in sim.started] == [1, 1]


def test_first_attempts_are_bounded_and_the_rest_waits_in_todo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qsend.core.reading.FIRST_MAX", 30)
    queue, _ = queue_of(*(envelope(b"a@x") for _ in range(80)))
    sim = Sim(queue, Script())
    sim.hold_reports = True
    for _ in range(10):
        sim.step()
    assert len(sim.manager.messages) == 30
    assert sim.manager.backlog_size == 50
    sim.hold_reports = False
    sim.run()
    assert len(sim.delivered) == 80


def test_message_that_waits_for_a_slot_is_written_down() -> None:
    queue, messids = queue_of(*(envelope(b"a@x%d" % n) for n in range(25)))
    sim = Sim(queue, Script())
    sim.hold_reports = True
    sim.step()
    sim.clocks.monotonic += FIRST_WAIT_S
    for _ in range(5):
        sim.step()
    waiting = [n for n in messids if queue.info_exists(n)]
    assert len(waiting) == 5
    sim.hold_reports = False
    sim.run()
    assert len(sim.delivered) == 25


def test_message_with_a_success_and_others_outstanding_is_written_with_its_mark() -> (
    None
):
    queue, [messid] = queue_of(envelope(b"a@x", b"b@y"))
    sim = Sim(queue, Script())
    sim.hold_reports = True
    sim.step()
    sim.report(*sim.reports.popleft())
    sim.clocks.monotonic += FIRST_PARTIAL_S
    for _ in range(5):
        sim.step()
    assert queue.read_recips(Channel.REMOTE, messid) == b"Da@x\0Tb@y\0"
    sim.hold_reports = False
    sim.run()
    assert queue.present(messid) == frozenset()


def test_dead_destination_does_not_keep_others_waiting() -> None:
    dead = [envelope(b"a@dead") for _ in range(40)]
    queue, _ = queue_of(*dead, envelope(b"b@well"))
    script = Script()
    script.by_recip[b"a@dead"] = UNREACHABLE
    limits = {Channel.LOCAL: 1, Channel.REMOTE: 5}
    settings = dataclasses.replace(
        SETTINGS, limits=limits, destination_limit=lambda _key: 3
    )
    sim = Sim(queue, script, settings=settings)
    sim.hold_reports = True
    sim.step()
    keys = Counter(start.key for start in sim.started)
    assert keys == {b"dead": UNPROVED_MAX, b"well": 1}


def make_ill(sim: Sim, script: Script) -> None:
    """Let the destination of every recipient fail twice, far enough apart."""
    script.default = UNREACHABLE
    sim.run()
    sim.clocks.wall += 500
    sim.clocks.monotonic += RECOUNT_S
    sim.run()


def test_ill_destination_parks_its_mail_and_a_flush_tries_it() -> None:
    queue, _ = queue_of(envelope(b"a@sick"))
    script = Script()
    sim = Sim(queue, script)
    make_ill(sim, script)
    sim.clocks.wall += 2000
    sim.run()
    assert script.tried == [b"a@sick"] * 2
    assert sim.manager.attempts.waiting[Channel.REMOTE].waiting == 1
    script.default = SUCCESS
    operator.flush(sim.manager, b"host:sick", sim.clocks.wall)
    sim.run()
    assert script.tried == [b"a@sick"] * 3
    assert sim.lines(b"end msg")


def test_cured_destination_gets_what_was_parked() -> None:
    queue, _ = queue_of(envelope(b"a@sick"))
    script = Script()
    sim = Sim(queue, script)
    make_ill(sim, script)
    sim.clocks.wall += 2000
    sim.run()
    script.default = SUCCESS
    operator.cure(sim.manager)
    sim.run()
    assert script.tried == [b"a@sick"] * 3


def test_parked_recipient_fails_with_the_last_error_when_its_time_is_over() -> None:
    queue, _ = queue_of(envelope(b"a@sick"))
    script = Script()
    sim = Sim(queue, script)
    make_ill(sim, script)
    sim.clocks.wall += 2000
    sim.run()
    sim.clocks.wall = NOW + WEEK + 1
    sim.clocks.monotonic += 61
    sim.run()
    assert script.tried == [b"a@sick"] * 2
    [line] = sim.lines(b"delivery 3")
    assert line.startswith(b"delivery 3: failure: no_host/")
    assert [event.recip for event in sim.bounced] == [b"a@sick"]


def test_last_attempt_turns_a_deferral_into_a_failure() -> None:
    queue, _ = queue_of(envelope(b"a@here"))
    script = Script(DEFERRAL)
    sim = Sim(queue, script)
    sim.run()
    sim.clocks.wall = NOW + WEEK + 1
    sim.run()
    [_, last] = sim.lines(b"delivery")
    assert last.startswith(b"delivery 2: failure: later/")
    assert last.endswith(GAVE_UP.replace(b" ", b"_").replace(b"\n", b"/\n"))
    assert [event.recip for event in sim.bounced] == [b"a@here"]


def test_mangled_report_defers_even_the_last_attempt() -> None:
    queue, _ = queue_of(envelope(b"a@here"))
    sim = Sim(queue, Script(MANGLED))
    sim.run()
    sim.clocks.wall = NOW + WEEK + 1
    sim.run()
    assert sim.lines(b"delivery") == [
        b"delivery 1: report mangled, will defer\n",
        b"delivery 2: report mangled, will defer\n",
    ]
    assert sim.bounced == []


def test_hold_of_a_channel_starts_nothing_until_released() -> None:
    queue, [messid] = queue_of(envelope(b"a@here", b"b@x"))
    script = Script()
    sim = Sim(queue, script)
    operator.hold(sim.manager, b"local")
    sim.run()
    assert script.tried == [b"b@x"]
    operator.release(sim.manager, b"local", NOW)
    sim.run()
    assert script.tried == [b"b@x", b"a@here"]
    assert queue.present(messid) == frozenset()


def test_concurrency_zero_holds_the_channel() -> None:
    queue, _ = queue_of(envelope(b"a@here"))
    limits = {Channel.LOCAL: 0, Channel.REMOTE: 20}
    sim = Sim(queue, Script(), settings=dataclasses.replace(SETTINGS, limits=limits))
    sim.run()
    assert not sim.started


def test_held_message_is_deferred_and_goes_when_released() -> None:
    queue, [messid, other] = queue_of(envelope(b"a@x"), envelope(b"b@x"))
    script = Script()
    sim = Sim(queue, script)
    operator.hold(sim.manager, b"mess:%d" % messid)
    sim.run()
    assert script.tried == [b"b@x"]
    sim.clocks.wall += 10**5
    sim.run()
    assert script.tried == [b"b@x"]
    operator.release(sim.manager, b"mess:%d" % messid, sim.clocks.wall)
    sim.run()
    assert script.tried == [b"b@x", b"a@x"]
    assert queue.present(messid) == queue.present(other) == frozenset()


@pytest.mark.parametrize("recips", [(b"a@here", b"b@here"), (b"a@x", b"b@y")])
def test_held_message_with_several_destinations_waits(
    recips: tuple[bytes, ...],
) -> None:
    queue, [messid] = queue_of(envelope(*recips))
    script = Script()
    full = dataclasses.replace(SETTINGS, limits=dict.fromkeys(Channel, 0))
    sim = Sim(queue, script, settings=full)
    sim.run()
    sim.clocks.monotonic += FIRST_WAIT_S
    sim.run()
    assert sim.manager.messages[messid].phase is Phase.QUEUED
    operator.hold(sim.manager, b"mess:%d" % messid)
    sim.manager.configure(SETTINGS)
    sim.run()
    assert not script.tried
    operator.release(sim.manager, b"mess:%d" % messid, sim.clocks.wall)
    sim.run()
    assert script.tried == list(recips)
    assert queue.present(messid) == frozenset()


def test_held_host_parks_its_mail() -> None:
    queue, _ = queue_of(envelope(b"a@x"), envelope(b"b@y"))
    script = Script()
    sim = Sim(queue, script)
    operator.hold(sim.manager, b"host:X")
    sim.run()
    assert script.tried == [b"b@y"]
    operator.release(sim.manager, b"all", NOW)
    sim.run()
    assert script.tried == [b"b@y", b"a@x"]


def test_message_that_crashes_its_child_twice_is_held_and_others_go_on() -> None:
    queue, [messid, _] = queue_of(envelope(b"bad@x"), envelope(b"good@x"))
    script = Script()
    script.by_recip[b"bad@x"] = CRASHED
    sim = Sim(queue, script)
    sim.run()
    sim.clocks.wall += 400
    sim.run()
    assert [start.alone for start in sim.started] == [False, False, True]
    assert sim.lines(b"alert: message %d is held" % messid)
    sim.clocks.wall += WEEK * 2
    sim.run()
    assert script.tried.count(b"bad@x") == 2
    assert not sim.bounced
    assert [event.recip for event in sim.delivered] == [b"good@x"]


def test_recipients_lost_with_one_process_are_one_crash() -> None:
    queue, _ = queue_of(envelope(b"a@here", b"b@here", b"c@x"))
    sim = Sim(queue, Script(CRASHED))
    sim.run()
    assert not sim.manager.attempts.held
    sim.clocks.wall += 400
    sim.run()
    assert sim.manager.attempts.held
    assert len(sim.lines(b"alert: message ")) == 1


def test_recipients_alone_that_are_lost_with_one_process_are_one_crash() -> None:
    queue, _ = queue_of(envelope(b"a@here", b"b@here"))
    script = Script(CHILD_LOST)
    sim = Sim(queue, script)
    sim.run()
    script.default = CRASHED
    sim.clocks.wall += 100
    sim.run()
    assert [start.alone for start in sim.started] == [False, False, True, True]
    assert not sim.manager.attempts.held


def test_user_who_kills_his_own_child_holds_up_nobody_elses_mail() -> None:
    queue, _ = queue_of(envelope(b"killer@here", b"slow@x"))
    script = Script()
    script.by_recip[b"killer@here"] = CHILD_LOST
    script.by_recip[b"slow@x"] = DEFERRAL
    sim = Sim(queue, script)
    for _ in range(4):
        sim.run()
        sim.clocks.wall += 4000
    killers = [each for each in sim.started if each.channel is Channel.LOCAL]
    assert len(killers) == 4
    assert not sim.manager.attempts.held
    script.by_recip[b"slow@x"] = SUCCESS
    sim.clocks.wall += 40000
    sim.run()
    assert [event.recip for event in sim.delivered] == [b"slow@x"]
    sim.clocks.wall += WEEK
    sim.run()
    assert len(sim.bounced) == 1


def test_message_that_lost_its_child_is_tried_alone() -> None:
    queue, _ = queue_of(envelope(b"a@here"))
    sim = Sim(queue, Script(CHILD_LOST))
    for _ in range(3):
        sim.run()
        sim.clocks.wall += 4000
    assert [start.alone for start in sim.started] == [False, True, True]


def test_loss_of_a_child_is_no_first_crash() -> None:
    queue, _ = queue_of(envelope(b"killer@here", b"a@x"))
    script = Script()
    script.by_recip[b"killer@here"] = CHILD_LOST
    script.by_recip[b"a@x"] = CRASHED
    sim = Sim(queue, script)
    sim.run()
    assert not sim.manager.attempts.held


def test_suspect_that_succeeds_alone_is_no_suspect_any_more() -> None:
    queue, _ = queue_of(envelope(b"a@x"))
    script = Script(CRASHED)
    sim = Sim(queue, script)
    sim.run()
    script.default = DEFERRAL
    sim.clocks.wall += 400
    sim.run()
    sim.clocks.wall += 4000
    sim.run()
    assert [start.alone for start in sim.started] == [False, True, False]


def test_flush_tries_everything_now() -> None:
    queue, messids = queue_of(envelope(b"a@here"), envelope(b"b@x"))
    script = Script(DEFERRAL)
    sim = Sim(queue, script)
    sim.run()
    script.tried.clear()
    operator.flush(sim.manager, b"mess:%d" % messids[0], NOW)
    sim.run()
    assert script.tried == [b"a@here"]
    script.default = SUCCESS
    operator.flush(sim.manager, b"all", NOW)
    sim.run()
    assert script.tried == [b"a@here", b"a@here", b"b@x"]


@pytest.mark.parametrize("what", [b"all", b"remote", b"mess:%d"])
def test_flush_repeats_what_a_pass_under_way_has_deferred(what: bytes) -> None:
    queue, [messid] = queue_of(envelope(b"a@x", b"b@y"))
    script = Script(DEFERRAL)
    sim = Sim(queue, script)
    sim.hold_reports = True
    sim.run_until(lambda: len(sim.reports) == 2)
    sim.report(*sim.reports.popleft())
    operator.flush(sim.manager, what % messid if b"%" in what else what, NOW)
    sim.hold_reports = False
    sim.run()
    sim.clocks.wall += 1
    sim.run()
    assert sorted(script.tried) == [b"a@x"] * 2 + [b"b@y"] * 2


def test_flush_of_a_host_leaves_others_to_their_schedule() -> None:
    queue, [_, other] = queue_of(envelope(b"a@x"), envelope(b"b@y"))
    script = Script(DEFERRAL)
    sim = Sim(queue, script)
    sim.run()
    due = queue.due(Channel.REMOTE, other)
    operator.flush(sim.manager, b"host:x", NOW)
    sim.run()
    assert script.tried == [b"a@x", b"b@y", b"a@x"]
    assert (due, other) in list(sim.manager.dues[Channel.REMOTE])


@pytest.mark.parametrize("what", [b"", b"host:", b"mess:", b"mess:x", b"everything"])
def test_unknown_target_is_refused(what: bytes) -> None:
    sim = Sim(FakeQueue(), Script())
    with pytest.raises(LocalProtocolError):
        operator.flush(sim.manager, what, NOW)
    with pytest.raises(LocalProtocolError):
        operator.hold(sim.manager, what)


def test_removed_message_is_gone_without_a_bounce() -> None:
    queue, [first, second] = queue_of(envelope(b"a@x"), envelope(b"b@x"))
    sim = Sim(queue, Script(DEFERRAL))
    sim.run()
    assert operator.remove(sim.manager, first)
    sim.run()
    assert queue.present(first) == frozenset()
    assert queue.present(second) == {"mess", "info", "remote"}
    assert not operator.remove(sim.manager, MessId(10**9))
    assert not sim.bounced


def test_message_being_delivered_cannot_be_removed() -> None:
    queue, [messid] = queue_of(envelope(b"a@x"))
    sim = Sim(queue, Script())
    sim.hold_reports = True
    sim.step()
    with pytest.raises(LocalProtocolError, match="being delivered"):
        operator.remove(sim.manager, messid)
    sim.hold_reports = False
    sim.run()
    assert len(sim.delivered) == 1


def test_damaged_envelope_is_set_aside_and_others_go_on() -> None:
    queue, [bad, _] = queue_of(b"?garbage\0", envelope(b"b@x"))
    sim = Sim(queue, Script())
    sim.run()
    assert [event.recip for event in sim.delivered] == [b"b@x"]
    assert queue.present(bad) == frozenset()
    kept = {path for path in queue.disk.files() if path.startswith("aside/")}
    assert {path.rpartition("/")[2] for path in kept} >= {"mess", "todo"}
    assert sim.lines(b"alert: message %d is set aside" % bad)


@pytest.mark.parametrize("vanished", ["mess", "info"])
def test_vanished_file_sets_the_rest_aside(vanished: str) -> None:
    queue, [messid] = queue_of(envelope(b"a@x"))
    sim = Sim(queue, Script(DEFERRAL))
    sim.run()
    queue.disk.unlink(str(messid), dir_fd=queue.dir_fd(vanished, messid))
    sim.clocks.wall += 400
    sim.run()
    assert queue.present(messid) == frozenset()
    assert any(path.startswith("aside/") for path in queue.disk.files())
    [line] = sim.lines(b"alert: message %d is set aside: " % messid)
    assert b"is missing" in line


def test_damaged_recipient_file_is_set_aside() -> None:
    queue, [messid] = queue_of(envelope(b"a@x"))
    sim = Sim(queue, Script(DEFERRAL))
    sim.run()
    queue.put("remote", messid, b"Xa@x\0")
    sim.clocks.wall += 400
    sim.run()
    assert queue.present(messid) == frozenset()
    assert not sim.bounced


def test_stop_writes_down_what_is_only_in_memory() -> None:
    queue, [messid] = queue_of(envelope(b"a@x", b"b@y"))
    sim = Sim(queue, Script())
    sim.hold_reports = True
    sim.step()
    sim.manager.stop()
    for _ in range(5):
        sim.step()
    assert queue.present(messid) == {"mess", "info", "remote"}
    sim.report_all()
    for _ in range(5):
        sim.step()
    assert queue.present(messid) == frozenset()


def test_number_reused_while_its_old_message_ends_is_looked_at_again() -> None:
    queue, [messid] = queue_of(envelope(b"a@x"))
    sim = Sim(queue, Script())
    sim.step()
    sim.hold_clean = True
    sim.step()
    assert sim.manager.messages[messid].phase is Phase.ENDING
    # Somebody removes it by hand, and the next message gets the number.
    for name in ("todo", "intd", "mess"):
        queue.disk.unlink(str(messid), dir_fd=queue.dirs.of(name, messid))
    again = queue.inject(b"another\n", envelope(b"b@x"))
    assert again == messid
    sim.manager.known(messid)
    sim.step()
    assert [event.recip for event in sim.delivered] == [b"a@x"]
    sim.hold_clean = False
    sim.run()
    assert [event.recip for event in sim.delivered] == [b"a@x", b"b@x"]


def test_stale_files_of_a_reused_number_are_gone_before_it_is_used() -> None:
    queue, [messid] = queue_of(envelope(b"a@x"))
    for name, content in (
        ("info", b"Fold@x\0"),
        ("local", b"Told@here\0"),
        ("remote", b"Told@x\0"),
        ("bounce", b"<old@x>:\nno\n\n"),
    ):
        queue.put(name, messid, content)
    sim = Sim(queue, Script(DEFERRAL))
    sim.run()
    assert queue.read_info(messid)[0] == b"me@home"
    assert queue.read_recips(Channel.REMOTE, messid) == b"Ta@x\0"
    assert queue.present(messid) == {"mess", "info", "remote"}


def test_todo_file_keeps_its_time_as_birth() -> None:
    queue, [messid] = queue_of(envelope(b"a@x"))
    born = queue.read_todo(messid)[1] // 10**9
    sim = Sim(queue, Script(DEFERRAL), now=NOW + 50)
    sim.run()
    assert queue.read_info(messid) == (b"me@home", born)


def test_disk_error_while_preprocessing_is_tried_again_and_loses_nothing() -> None:
    queue, [messid] = queue_of(envelope(b"a@x"))
    script = Script(DEFERRAL)
    sim = Sim(queue, script)
    queue.disk.fail = _fail_once("write")
    sim.run()
    assert sim.lines(b"warning: trouble with")
    assert queue.present(messid) >= {"mess", "todo"}
    sim.loop.later.pop()()
    sim.run()
    assert queue.present(messid) == {"mess", "info", "remote"}


def _fail_once(name: str) -> Callable[[str, str], int]:
    """A disk that is full for one call."""
    left = [1]

    def fail(call: str, _path: str) -> int:
        if call == name and left[0]:
            left[0] -= 1
            return 28
        return 0

    return fail
