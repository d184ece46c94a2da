"""The injection service: whom it serves, whom it limits, how it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.core.quota import Limits
from qsend.formats import injection
from qsend.formats.frames import frame
from qsend.formats.queueexit import QueueExit
from qsend.sysio import clock, injectconnection
from tests.injecthome import (
    DEADLINE_S,
    EMPTY,
    many_accounts,
    message_frames,
)
from tests.injectservice import (
    GOOD,
    ROOT,
    Make,
    Service,
    ordinary,
    part,
    send,
    word,
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Service] = []

    def build(min_free: int = 0, **limits: float) -> Service:
        made.append(Service(tmp_path / "home", Limits(**limits), min_free))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for service in made:
        service.close()


@pytest.mark.parametrize(
    "frames",
    [
        [frame(b"?", b"\0\0\0\1")],
        [frame(injection.MESSAGE, b"\0\0")],
        [frame(injection.MESSAGE, b"\xff\xff\xff\xff")],
        [part(injection.ENVELOPE, 1, b"F"), part(injection.MESSAGE, 1, b"x")],
        [word(injection.COMMIT, 1)[:-1]],
        [frame(injection.QUEUED, b"\0" * 8)],
        [*message_frames(1, b"x", GOOD), part(injection.MESSAGE, 1, b"x")],
        [*message_frames(1, b"x", GOOD), word(injection.COMMIT, 1)],
        [frame(injection.HANDOVER, b"")],
    ],
)
def test_protocol_errors_drop_that_client_only(make: Make, frames: list[bytes]) -> None:
    service = make()
    bad, good = service.client(), service.client()
    send(good, message_frames(1, b"x", GOOD, commit=False))
    send(bad, frames)
    while packet := service.frames(bad):
        assert packet[0][0] == injection.RESULT
    good.send(word(injection.COMMIT, 1))
    assert service.result(good)[:2] == (1, 0)


@pytest.mark.parametrize("how_far", ["message", "envelope", "committed"])
def test_dying_client_leaves_nothing_unless_it_had_said_all(
    make: Make, how_far: str
) -> None:
    service = make()
    client = service.client()
    frames = message_frames(1, b"x" * 30000, GOOD)
    send(client, {"message": frames[:1], "envelope": frames[:2]}.get(how_far, frames))
    client.close()
    if how_far == "committed":
        service.turn_until(lambda: bool(service.queued))
        assert len(service.files()["todo"]) == 1
    else:
        service.turn_until(lambda: not service.server._connections)
        assert service.files() == EMPTY


def test_message_over_its_time_is_52_and_others_are_not(make: Make) -> None:
    service = make(message_s=0.3)
    slow, quick = service.client(), service.client()
    slow.send(part(injection.MESSAGE, 1, b"x" * 20000))
    service.turns()
    send(quick, message_frames(1, b"x", GOOD))
    assert service.result(quick)[:2] == (1, 0)
    assert service.result(slow)[:2] == (1, QueueExit.TIMEOUT)
    assert len(service.files()["mess"]) == 1
    # The next limit is armed as well.
    slow.send(word(injection.ABORT, 1) + part(injection.MESSAGE, 2, b"x"))
    assert service.result(slow)[:2] == (2, QueueExit.TIMEOUT)


def test_below_queueminfree_is_53_except_for_the_exempt(make: Make) -> None:
    service = make(min_free=1 << 60)
    for caller in (ROOT, ordinary(500)):
        client = service.client(caller)
        send(client, message_frames(1, b"x", GOOD))
        assert service.result(client)[:2] == (1, 53)
    assert service.files() == EMPTY
    assert "queueminfree" in service.troubles[0]
    exempt = service.client(ordinary(501, is_exempt=True))
    send(exempt, message_frames(1, b"x", GOOD))
    assert service.result(exempt)[:2] == (1, 0)
    service.intake.min_free = 0
    send(client, message_frames(2, b"x", GOOD))
    assert service.result(client)[:2] == (2, 0)


def test_free_space_is_looked_at_while_a_message_grows(make: Make) -> None:
    service = make()
    client = service.client()
    client.send(part(injection.MESSAGE, 1, b"x" * 50000))
    service.turns()
    service.intake.min_free = 1 << 60
    for _ in range(30):
        client.send(part(injection.MESSAGE, 1, b"x" * 50000))
        service.turns()
    assert service.result(client)[:2] == (1, 53)
    assert service.files() == EMPTY


def test_bytes_in_progress_are_limited_per_uid(make: Make) -> None:
    service = make(bytes_per_uid=100000)
    one, two = service.client(ordinary(500)), service.client(ordinary(500))
    other, root = service.client(ordinary(501)), service.client()
    for client in (one, other, root):
        client.send(part(injection.MESSAGE, 1, b"x" * 60000))
    service.turns()
    two.send(part(injection.MESSAGE, 1, b"x" * 60000))
    assert service.result(two)[:2] == (1, 53)
    for client in (one, other, root):
        client.send(part(injection.ENVELOPE, 1, GOOD) + word(injection.COMMIT, 1))
        assert service.result(client)[:2] == (1, 0)
    send(two, [word(injection.ABORT, 1), *message_frames(2, b"x" * 50000, GOOD)])
    assert service.result(two)[:2] == (2, 0)


def test_streams_are_limited_per_uid_and_connection(make: Make) -> None:
    service = make(streams_per_uid=3)
    client = service.client(ordinary(500))
    for stream in range(5):
        client.send(part(injection.MESSAGE, stream, b"x"))
    found = service.results(client, 2)
    assert [(stream, code) for stream, code, _ in found] == [(3, 71), (4, 71)]
    root = service.client()
    for stream in range(5):
        send(root, message_frames(stream, b"x", GOOD))
    assert {code for _, code, _ in service.results(root, 5)} == {0}


@pytest.mark.root
def test_connections_are_limited_per_uid_but_not_for_root(
    make: Make, open_tmp: Path
) -> None:
    service = make(connections_per_uid=3, stalled_s=1000.0)
    name = service.listen(open_tmp)
    mine = [service.connect(name, 65001) for _ in range(3)]
    refused = service.connect(name, 65001)
    whole = injection.WHOLE_CONNECTION
    assert service.result(refused) == (whole, QueueExit.BUSY, 0)
    assert service.frames(refused) == []
    accounts = many_accounts()
    others = [
        service.connect(name, uid)
        for uid in (65002, 0, 0, 0, 0, *[accounts.qmaild.uid] * 4)
    ]
    for client in (*others, mine[0]):
        send(client, message_frames(1, b"x", GOOD))
        assert service.result(client)[:2] == (1, 0)
    mine.pop().close()
    service.turns()
    again = service.connect(name, 65001)
    send(again, message_frames(1, b"x", GOOD))
    assert service.result(again)[:2] == (1, 0)


@pytest.mark.root
@pytest.mark.parametrize("account", ["qmaill", "qmailp", "qmailr"])
def test_accounts_that_send_no_mail_are_limited_as_any(
    make: Make, open_tmp: Path, account: str
) -> None:
    service = make(connections_per_uid=1, stalled_s=1000.0)
    name = service.listen(open_tmp)
    uid = getattr(many_accounts(), account).uid
    first, second = service.connect(name, uid), service.connect(name, uid)
    assert service.result(second)[:2] == (injection.WHOLE_CONNECTION, QueueExit.BUSY)
    send(first, message_frames(1, b"x", GOOD))
    assert service.result(first)[:2] == (1, 0)


@pytest.mark.root
def test_stalled_connection_above_the_share_makes_room(
    make: Make, open_tmp: Path
) -> None:
    service = make(connections_per_uid=2, stalled_s=0.0)
    name = service.listen(open_tmp)
    oldest, other = service.connect(name, 65001), service.connect(name, 65001)
    oldest.send(part(injection.MESSAGE, 1, b"x" * 20000))
    service.turns()
    other.send(part(injection.MESSAGE, 1, b"x"))
    service.turns()
    newest = service.connect(name, 65001)
    assert service.result(oldest)[0] == injection.WHOLE_CONNECTION
    assert service.frames(oldest) == []
    send(newest, message_frames(1, b"x", GOOD))
    assert service.result(newest)[:2] == (1, 0)
    other.send(part(injection.ENVELOPE, 1, GOOD) + word(injection.COMMIT, 1))
    assert service.result(other)[:2] == (1, 0)


@pytest.mark.root
def test_flood_of_one_uid_leaves_room_for_the_next(make: Make, open_tmp: Path) -> None:
    service = make(connections=4, connections_per_uid=4, stalled_s=1000.0)
    name = service.listen(open_tmp)
    flood = [service.connect(name, 65001) for _ in range(4)]
    newcomer = service.connect(name, 65002)
    send(newcomer, message_frames(1, b"x", GOOD))
    assert service.result(newcomer)[:2] == (1, 0)
    assert service.result(flood[0])[0] == injection.WHOLE_CONNECTION
    send(flood[1], message_frames(1, b"x", GOOD))
    assert service.result(flood[1])[:2] == (1, 0)


@pytest.mark.root
def test_received_line_tells_the_real_uid(make: Make, open_tmp: Path) -> None:
    service = make()
    name = service.listen(open_tmp)
    accounts = many_accounts()
    wanted = {
        65001: b"by uid 65001",
        accounts.alias.uid: b"by alias",
        accounts.qmaild.uid: b"from network",
        accounts.qmails.uid: b"for bounce",
    }
    for uid, who in wanted.items():
        client = service.connect(name, uid)
        send(client, message_frames(1, b"x", GOOD))
        assert service.result(client) == (1, 0, os.getpid())
        messid = service.queued[-1]
        mess = (service.queue / f"mess/{messid % 23}/{messid}").read_bytes()
        assert mess.startswith(b"Received: (qmail %d invoked %b);" % (os.getpid(), who))
        todo = (service.queue / f"todo/{messid}").read_bytes()
        assert todo.startswith(b"u%d\0p%d\0" % (uid, os.getpid()))


def test_client_that_reads_no_answers_is_dropped(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(injectconnection, "_BACKLOG_MAX", 1)
    # Refused before a file is made: quicker, and as many answers.
    service = make(min_free=1 << 60)
    client = service.client()
    end_mono = clock.mono() + DEADLINE_S
    commits = word(injection.COMMIT, 1) * 4000
    while service.server._connections:
        assert clock.mono() < end_mono
        try:
            client.send(commits)
        except (BlockingIOError, BrokenPipeError):
            pass
        service.turns(1)
    assert service.files() == EMPTY


def test_flood_of_tiny_frames_does_not_hold_up_the_others(make: Make) -> None:
    service = make()
    flood = [service.client(ordinary(500)) for _ in range(20)]
    tiny = part(injection.MESSAGE, 1, b"x") * 6000
    for client in flood:
        client.send(tiny)
        client.send(tiny)
    good = service.client()
    send(good, message_frames(1, b"x", GOOD))
    start_mono = clock.mono()
    service.loop.turn(0)
    # One turn reads one packet of one or two of them, and the good client's.
    assert clock.mono() - start_mono < 1
    assert service.syncer.idle() is False
    assert service.result(good)[:2] == (1, 0)
    for client in flood:
        client.send(part(injection.ENVELOPE, 1, GOOD) + word(injection.COMMIT, 1))
        assert service.result(client)[:2] == (1, 0)
    sizes = {path.stat().st_size for path in (service.queue / "mess").rglob("*/*")}
    assert len([size for size in sizes if size > 12000]) == 1


def test_flood_of_messages_in_vain_is_dropped_unless_trusted(make: Make) -> None:
    service = make()
    vain = (part(injection.MESSAGE, 1, b"x") + word(injection.ABORT, 1)) * 200
    client, root = service.client(ordinary(500)), service.client()
    for sock in (client, root):
        sock.send(vain)
    assert service.result(client)[0] == injection.WHOLE_CONNECTION
    assert service.frames(client) == []
    send(root, message_frames(1, b"x", GOOD))
    assert service.result(root)[:2] == (1, 0)


@pytest.mark.parametrize("keep", [True, False])
def test_drain_finishes_what_is_complete(make: Make, keep: bool) -> None:
    service = make()
    idle, open_, complete = (service.client() for _ in range(3))
    send(idle, message_frames(1, b"x", GOOD))
    assert service.result(idle)[:2] == (1, 0)
    open_.send(part(injection.MESSAGE, 1, b"x" * 20000))
    service.turns()
    send(complete, message_frames(1, b"x", GOOD))
    service.loop.turn(0)
    drained: list[bool] = []
    service.server.drain(lambda: drained.append(True), keep_incomplete=keep)
    assert service.result(complete)[:2] == (1, 0)
    assert service.frames(complete) == []
    assert service.frames(idle) == []
    if keep:
        service.turns()
        assert not drained
        open_.send(part(injection.MESSAGE, 2, b"new"))
        assert service.result(open_)[:2] == (2, QueueExit.BUSY)
        open_.send(word(injection.ABORT, 2) + part(injection.ENVELOPE, 1, GOOD))
        open_.send(word(injection.COMMIT, 1))
        assert service.result(open_)[:2] == (1, 0)
    assert service.frames(open_) == []
    service.turn_until(lambda: bool(drained))
    assert drained == [True]
    assert len(service.files()["todo"]) == 2 + keep


def test_a_client_accepted_just_before_a_handover_is_heard(make: Make) -> None:
    service = make(stalled_s=0.3)
    quick, silent = service.client(), service.client()
    drained: list[bool] = []
    service.server.drain(lambda: drained.append(True), keep_incomplete=True)
    service.turns()
    send(quick, message_frames(1, b"x", GOOD))
    assert service.result(quick)[:2] == (1, 0)
    assert service.frames(quick) == []
    assert not drained
    # Who never says anything must not keep the old process.
    assert service.frames(silent) == []
    service.turn_until(lambda: bool(drained))
