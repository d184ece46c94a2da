"""One message through the injection service, and what can go wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.core.quota import Limits
from qsend.formats import injection
from qsend.sysio.injectserver import FIRST_SERIAL
from qsend.sysio.syncer import _Request
from tests.injecthome import (
    EMPTY,
    message_frames,
)
from tests.injectservice import (
    GOOD,
    Make,
    Service,
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


def test_message_is_queued_and_answered_with_the_pid(make: Make) -> None:
    service = make()
    client = service.client()
    send(client, message_frames(5, b"Subject: x\n\n", GOOD))
    assert service.result(client) == (5, 0, 77)
    (messid,) = service.queued
    there = {name: [messid] for name in ("mess", "intd", "todo")}
    assert service.files() == {**EMPTY, **there}
    todo = service.queue / f"todo/{messid}"
    assert todo.read_bytes() == b"u0\0p77\0Fa@b\0Tc@d\0"
    mess = (service.queue / f"mess/{messid % 23}/{messid}").read_bytes()
    assert mess.startswith(b"Received: (qmail 77 invoked by uid 0); ")
    assert mess.endswith(b" -0000\nSubject: x\n\n")


@pytest.mark.parametrize("cut", [1, 2, 3, 1000])
def test_message_and_envelope_may_be_cut_anywhere(make: Make, cut: int) -> None:
    service = make()
    client = service.client()
    message = b"Subject: x\n\nbody\n"
    pieces = [(injection.MESSAGE, message), (injection.ENVELOPE, GOOD)]
    for kind, data in pieces:
        for at in range(0, len(data), cut):
            client.send(part(kind, 1, data[at : at + cut]))
            service.turns(1)
    client.send(word(injection.COMMIT, 1))
    assert service.result(client)[1] == 0
    (messid,) = service.queued
    mess = (service.queue / f"mess/{messid % 23}/{messid}").read_bytes()
    assert mess.partition(b"\n")[2] == message


def test_streams_interleave_and_later_ones_get_serials(make: Make) -> None:
    service = make()
    client = service.client()
    for stream in range(4):
        client.send(part(injection.MESSAGE, stream, b"%d\n" % stream))
    for stream in reversed(range(4)):
        client.send(part(injection.ENVELOPE, stream, b"F%d\0\0" % stream))
    for stream in (2, 0, 3, 1):
        client.send(word(injection.COMMIT, stream))
    found = {stream: (code, qp) for stream, code, qp in service.results(client, 4)}
    assert found == {
        0: (0, 77),
        **{n: (0, FIRST_SERIAL + n - 1) for n in (1, 2, 3)},
    }
    senders = {path.read_bytes() for path in (service.queue / "todo").iterdir()}
    assert senders == {
        b"u0\0p77\0F0\0",
        *(b"u0\0p%d\0F%d\0" % (FIRST_SERIAL + n - 1, n) for n in (1, 2, 3)),
    }


def test_many_waiting_messages_share_two_rounds(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    rounds: list[int] = []
    real = service.syncer._run_round

    def counting(requests: list[_Request]) -> None:
        rounds.append(len(requests))
        real(requests)

    monkeypatch.setattr(service.syncer, "_run_round", counting)
    client = service.client()
    for stream in range(20):
        send(client, message_frames(stream, b"x\n", GOOD))
    service.results(client, 20)
    assert sum(rounds) == 40
    assert len(rounds) < 12


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (b"F" + b"x" * 1003 + b"\0\0", 11),
        (b"Fa\0T" + b"x" * 1003 + b"\0\0", 11),
        (b"Xa\0\0", 91),
        (b"Fa\0Xb\0\0", 91),
        (b"Fa\0Tb\0", 54),
        (b"", 54),
    ],
)
def test_bad_envelope_has_its_code_and_leaves_nothing(
    make: Make, envelope: bytes, code: int
) -> None:
    service = make()
    client = service.client()
    for stream in (1, 2):
        send(client, message_frames(stream, b"x" * 50000, envelope))
        assert service.result(client)[:2] == (stream, code)
        assert service.files() == EMPTY
    # The connection and the stream numbers go on being usable.
    send(client, message_frames(1, b"x", GOOD))
    assert service.result(client)[:2] == (1, 0)
    assert service.troubles == []


def test_zero_recipients_and_line_ends_in_addresses_are_queued(make: Make) -> None:
    service = make()
    client = service.client()
    send(client, message_frames(1, b"", b"F\0\0"))
    send(client, message_frames(2, b"", b"F" + b"y" * 1002 + b"\0Ta\r\nb@c\0\0"))
    assert [code for _, code, _ in service.results(client, 2)] == [0, 0]
    assert b"Ta\r\nb@c\0" in b"".join(
        path.read_bytes() for path in (service.queue / "todo").iterdir()
    )


def test_early_answer_is_followed_by_silence_until_the_client_has_ended(
    make: Make,
) -> None:
    service = make()
    client = service.client()
    client.send(part(injection.ENVELOPE, 1, b"X"))
    assert service.result(client)[:2] == (1, 91)
    client.send(part(injection.ENVELOPE, 1, GOOD))
    client.send(part(injection.MESSAGE, 1, b"more"))
    client.send(word(injection.COMMIT, 1))
    send(client, message_frames(2, b"x", GOOD))
    assert service.result(client)[:2] == (2, 0)


def test_abort_forgets_the_message_without_an_answer(make: Make) -> None:
    service = make()
    client = service.client()
    send(client, message_frames(1, b"x" * 30000, GOOD, commit=False))
    client.send(word(injection.ABORT, 1))
    client.send(word(injection.ABORT, 9))
    send(client, message_frames(2, b"x", GOOD))
    assert service.result(client)[:2] == (2, 0)
    assert len(service.files()["mess"]) == 1


def test_failed_sync_is_answered_53_and_leaves_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    client = service.client()

    def broken(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        send(client, message_frames(1, b"x", GOOD))
        assert service.result(client)[:2] == (1, 53)
    assert service.files() == EMPTY
    assert "Input/output error" in service.troubles[0]
    assert service.queued == []


def test_failed_second_round_is_66_and_the_message_stays(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    client = service.client()
    real = os.fsync

    def broken(fd: int) -> None:
        if fd == service.writer.todo_fd:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", broken)
    send(client, message_frames(1, b"x", GOOD))
    assert service.result(client)[:2] == (1, 66)
    # It may be durable: at worst twice, never half removed under the manager.
    assert len(service.files()["todo"]) == 1
    assert len(service.files()["mess"]) == 1
