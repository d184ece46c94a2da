"""An endpoint over a real socket pair: what a peer said last is not lost."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from qsend.core.errors import OutOfDescriptors
from qsend.formats import frames
from qsend.sysio.endpoint import Descriptors, Endpoint, pair
from qsend.sysio.loop import Loop
from tests.localtree import limit_leaving


class Side:
    """An endpoint that notes what it gets."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.got: list[bytes] = []
        self.reasons: list[str] = []
        self.endpoint = Endpoint(loop, sock, self.frame, self.reasons.append)

    def frame(self, _kind: bytes, body: bytes, _fds: Descriptors) -> None:
        self.got.append(body)
        self.endpoint.send(frames.frame(b"a", body))


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def until_closed(loop: Loop, side: Side) -> None:
    for _ in range(1000):
        if side.reasons:
            return
        loop.turn(5)
    raise AssertionError("never closed")


@pytest.mark.parametrize("count", [1, 16, 17, 100])
def test_endpoint_gives_out_all_that_a_lost_peer_said(loop: Loop, count: int) -> None:
    ours, theirs = pair()
    side = Side(loop, ours)
    for number in range(count):
        theirs.send(frames.frame(b"q", str(number).encode()))
    theirs.close()
    until_closed(loop, side)
    assert side.got == [str(number).encode() for number in range(count)]
    assert side.reasons == ["closed"]


def test_endpoint_whose_peer_closed_unread_still_reads_its_packets(
    loop: Loop,
) -> None:
    ours, theirs = pair()
    side = Side(loop, ours)
    side.endpoint.send(frames.frame(b"a", b"never read"))
    side.endpoint.flush()
    for number in range(40):
        theirs.send(frames.frame(b"q", str(number).encode()))
    theirs.close()
    until_closed(loop, side)
    assert len(side.got) == 40
    assert side.reasons == ["closed"]


def test_endpoint_to_a_lost_peer_closes_descriptors_it_was_given(loop: Loop) -> None:
    ours, theirs = pair()
    side = Side(loop, ours)
    theirs.close()
    read, write = os.pipe()
    os.set_blocking(read, False)
    side.endpoint.send(frames.frame(b"a", b""), write)
    side.endpoint.flush()
    assert os.read(read, 1) == b""  # every writer is closed
    other = os.dup(read)
    side.endpoint.send(frames.frame(b"a", b""), other)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(other)
    os.close(read)
    until_closed(loop, side)
    assert side.reasons == ["closed"]


def test_peer_that_asks_for_life_and_never_reads_fills_no_memory(loop: Loop) -> None:
    ours, theirs = pair()
    side = Side(loop, ours)
    theirs.setblocking(False)
    ping = frames.frame(frames.PING, b"")
    flood = ping * (frames.PACKET_MAX // len(ping))
    for _ in range(2000):
        with suppress(BlockingIOError):
            theirs.send(flood)
        loop.turn(0)
        assert side.endpoint.backlog <= 1
    # What it did not read goes out before it is answered again.
    with suppress(BlockingIOError):
        while theirs.recv(100):
            loop.turn(0)
    theirs.send(ping + frames.frame(b"q", b"x") + ping)
    loop.turn(1)
    loop.turn(0)
    assert side.got[-1] == b"x"
    answer = theirs.recv(100)
    assert answer == frames.frame(b"a", b"x") + frames.frame(frames.PONG, b"")
    side.endpoint.close("done")
    theirs.close()


def test_descriptors_without_room_are_missed_by_their_frames_alone(
    loop: Loop,
) -> None:
    ours, theirs = pair()
    told: list[str] = []

    def frame(kind: bytes, _body: bytes, fds: Descriptors) -> None:
        try:
            os.close(fds.take())
        except OutOfDescriptors:
            told.append("missed")
        else:
            told.append("taken")

    reasons: list[str] = []
    receiver = Endpoint(loop, ours, frame, reasons.append, max_fds=frames.FDS_MAX)
    sender = Endpoint(loop, theirs, lambda *_: None, reasons.append)
    for _ in range(3):
        sender.send(frames.frame(b"a", b""), os.open("/dev/null", os.O_RDONLY))
    sender.flush()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit_leaving(1), before[1]))
    try:
        loop.turn(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert told == ["taken", "missed", "missed"]
    # More than are ever sent is no shortage.
    many = [os.dup(theirs.fileno()) for _ in range(frames.FDS_MAX + 1)]
    socket.send_fds(theirs, [frames.frame(b"a", b"")], many)
    for fd in many:
        os.close(fd)
    assert not reasons
    loop.turn(1)
    assert reasons == ["packet too long"]
    for each in (receiver, sender):
        each.close("")
