"""Bounces go to enqueue whole, in pieces, and are answered or tried again."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.core.bounce import Identity
from qsend.core.model import MessId
from qsend.formats import frames, injection
from qsend.sysio.bouncer import WINDOW, Bouncer
from qsend.sysio.endpoint import Descriptors, Endpoint, pair
from qsend.sysio.fsq import Queue
from qsend.sysio.loop import Loop
from tests.queues import inject, make_queue

WHO = Identity(
    bouncefrom=b"MAILER-DAEMON",
    bouncehost=b"here",
    doublebounceto=b"postmaster",
    doublebouncehost=b"here",
)


class Bench:
    """A bouncer, its line, and enqueue's end of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = make_queue(home)
        self.queue = Queue(str(self.path))
        self.loop = Loop()
        self.log: list[bytes] = []
        self.answers: list[bool] = []
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self.bouncer = Bouncer(self.queue, lambda: WHO, self.log.append)
        ours, self.peer = pair()
        self.peer.settimeout(10)
        self.connect(ours)
        self.loop.at_turn_end(self.bouncer.push)

    def connect(self, ours: socket.socket) -> None:
        """As send does it when start tells of an enqueue."""
        self.endpoint = Endpoint(
            self.loop, ours, self._frame, lambda _reason: self.bouncer.lost()
        )
        self.bouncer.attach(self.endpoint)

    def _frame(self, _kind: bytes, body: bytes, _fds: Descriptors) -> None:
        self.bouncer.answered(body)

    def message(self, body: bytes, failures: bytes) -> MessId:
        messid = inject(self.path, body)
        (self.path / f"bounce/{messid}").write_bytes(failures)
        return messid

    def turn(self) -> None:
        self.loop.turn(0)

    def receive(self) -> tuple[bytes, bytes]:
        """Message and envelope of the next bounce, read as enqueue would."""
        parts = {injection.MESSAGE: b"", injection.ENVELOPE: b""}
        while True:
            while not self._frames:
                self.turn()
                if select.select([self.peer], [], [], 0)[0]:
                    self._frames += frames.split(self.peer.recv(frames.PACKET_MAX))
            kind, body = self._frames.popleft()
            if kind == injection.COMMIT:
                return parts[injection.MESSAGE], parts[injection.ENVELOPE]
            parts[kind] += body[4:]

    def close(self) -> None:
        self.endpoint.sock.close()
        self.peer.close()
        self.queue.close()
        self.loop.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_bounce_is_text_report_and_the_message_byte_for_byte(bench: Bench) -> None:
    original = b"Subject: x\n\n\xff\0 body without line end"
    messid = bench.message(original, b"<a@b>:\nno such user\n\n")
    bench.bouncer.send(messid, b"me@home", bench.answers.append)
    message, envelope = bench.receive()
    assert envelope == b"F\0Tme@home\0\0"
    assert message.startswith(b"Date: ")
    assert b"\n\n<a@b>:\nno such user\n\n--- Below this line" in message
    assert message.endswith(b"\n\nReturn-Path: <me@home>\n" + original)
    bench.peer.send(injection.render_result(1, 0, 77))
    bench.turn()
    bench.turn()
    assert bench.answers == [True]
    assert bench.log == [b"bounce msg %d qp 77\n" % messid]


def test_large_message_waits_for_enqueue_and_arrives_whole(bench: Bench) -> None:
    original = bytes(range(256)) * 16384
    messid = bench.message(original, b"<a@b>:\nno\n\n")
    bench.bouncer.send(messid, b"me@home", bench.answers.append)
    for _ in range(20):
        bench.turn()
    assert bench.bouncer.busy
    assert bench.endpoint.backlog <= WINDOW + 1
    message, _ = bench.receive()
    assert message.endswith(original)


def test_several_bounces_are_under_way_at_once(bench: Bench) -> None:
    for n in range(3):
        messid = bench.message(b"%d\n" % n, b"<a@b>:\nno\n\n")
        bench.bouncer.send(messid, b"me@home", bench.answers.append)
    for _ in range(3):
        bench.receive()
    for stream, code in ((2, 0), (1, 53), (3, 0)):
        bench.peer.send(injection.render_result(stream, code, 9))
    for _ in range(3):
        bench.turn()
    assert bench.answers == [True, False, True]


def test_message_without_failures_owes_no_bounce(bench: Bench) -> None:
    messid = inject(bench.path)
    bench.bouncer.send(messid, b"me@home", bench.answers.append)
    assert bench.answers == [True]


def test_failed_double_bounce_is_discarded_with_its_line(bench: Bench) -> None:
    messid = bench.message(b"x\n", b"<a@b>:\nno\n\n")
    bench.bouncer.send(messid, b"#@[]", bench.answers.append)
    assert bench.answers == [True]
    assert bench.log == [b"triple bounce: discarding bounce/%d\n" % messid]


def test_lost_enqueue_fails_what_it_had_and_what_comes(bench: Bench) -> None:
    messid = bench.message(b"x\n", b"<a@b>:\nno\n\n")
    bench.bouncer.send(messid, b"me@home", bench.answers.append)
    bench.receive()
    bench.peer.close()
    bench.turn()
    assert bench.answers == [False]
    bench.bouncer.send(messid, b"me@home", bench.answers.append)
    assert bench.answers == [False, False]


def test_late_end_of_a_line_leaves_the_one_in_its_place(bench: Bench) -> None:
    messid = bench.message(b"x\n", b"<a@b>:\nno\n\n")
    bench.bouncer.send(messid, b"me@home", bench.answers.append)
    old, (ours, theirs) = bench.peer, pair()
    # start's word of the new enqueue is read before the end of the old one's line.
    bench.connect(ours)
    bench.peer = theirs
    assert bench.answers == [False]
    bench.bouncer.send(messid, b"me@home", bench.answers.append)
    old.close()
    assert b"no" in bench.receive()[0]
    assert bench.answers == [False]


def test_message_that_cannot_be_read_aborts_its_bounce(bench: Bench) -> None:
    messid = bench.message(b"x\n", b"<a@b>:\nno\n\n")
    (bench.path / f"mess/{messid % 23}/{messid}").unlink()
    bench.bouncer.send(messid, b"me@home", bench.answers.append)
    bench.turn()
    bench.turn()
    assert bench.answers == [False]
    kinds = [kind for kind, _ in frames.split(bench.peer.recv(frames.PACKET_MAX))]
    assert kinds[-1] == injection.ABORT
