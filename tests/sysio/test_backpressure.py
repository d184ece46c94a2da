"""What makes intake pause, who is exempt, and what is told."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.core.quota import Limits
from qsend.formats import injection
from qsend.sysio import injectstream
from qsend.sysio.endpoint import Endpoint, pair
from qsend.sysio.injectstream import FILE_BYTES
from qsend.sysio.loop import Loop
from qsend.sysio.pressure import FULL_AT, RELIEVED_AT, Pressure
from tests.injecthome import message_frames
from tests.injectservice import GOOD, Service, ordinary, send

EXEMPT = ordinary(501, is_exempt=True)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "home", Limits())
    yield made
    made.close()


def answer(service: Service, *, exempt: bool = False) -> int:
    """The exit code that one message gets."""
    client = service.client(EXEMPT) if exempt else service.client()
    send(client, message_frames(1, b"x", GOOD))
    return service.result(client)[1]


def test_without_free_inodes_mail_waits_elsewhere(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstatvfs(service.writer.todo_fd)
    few = os.statvfs_result((*real[:5], 1000, 10, 10, *real[8:]))
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: few)
    service.intake.min_free = 10 * FILE_BYTES
    assert answer(service) == 0
    service.intake.min_free = 11 * FILE_BYTES
    assert answer(service) == 53
    assert answer(service, exempt=True) == 0
    [text] = set(service.troubles)
    assert "has no 11 files left" in text


def test_a_file_system_without_a_number_of_inodes_has_enough(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstatvfs(service.writer.todo_fd)
    none = os.statvfs_result((*real[:5], 0, 0, 0, *real[8:]))
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: none)
    service.intake.min_free = 1 << 20
    assert answer(service) == 0


def test_send_says_when_it_has_too_much_and_when_no_more(service: Service) -> None:
    manager = service.client(EXEMPT)
    send(manager, [injection.render_pressure(is_pressed=True)])
    service.turn_until(lambda: service.intake.is_pressed)
    assert answer(service) == 71
    assert answer(service, exempt=True) == 0
    send(manager, [injection.render_pressure(is_pressed=False)])
    service.turn_until(lambda: not service.intake.is_pressed)
    assert answer(service) == 0
    assert len(service.troubles) == 1


def test_nobody_else_can_stop_intake(service: Service) -> None:
    client = service.client()
    send(client, [injection.render_pressure(is_pressed=True)])
    assert service.frames(client) == []
    assert not service.intake.is_pressed


def test_a_disk_that_does_not_sync_takes_no_more(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(injectstream, "LAG_MAX_S", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _fd: released.wait(30))
        first = service.client()
        send(first, message_frames(1, b"x", GOOD))
        service.turn_until(lambda: bool(service.intake._committed_mono))
        service.turn_until(lambda: service.intake._overload() is not None)
        assert answer(service) == 71
        released.set()
        assert service.result(first)[1] == 0
    assert answer(service) == 0


def test_pressure_is_told_once_and_taken_back_at_half() -> None:
    loop = Loop()
    ours, theirs = pair()
    said: list[bool] = []
    far = Endpoint(
        loop, theirs, lambda _k, body, _f: said.append(body == b"\1"), lambda _r: None
    )
    near = Endpoint(loop, ours, lambda *_: None, lambda _r: None)
    pressure = Pressure()
    pressure.measure(FULL_AT + 1)
    pressure.attach(near)
    for backlog in (0, FULL_AT, FULL_AT + 1, FULL_AT + 2, RELIEVED_AT + 1, RELIEVED_AT):
        pressure.measure(backlog)
        loop.turn(0)
        loop.turn(0)
    assert said == [True, False]
    near.close("")
    far.close("")
    loop.close()
