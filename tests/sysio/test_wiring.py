"""Ends between siblings: whoever forks first leaves the other end waiting."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from qsend.sysio import endpoint
from qsend.sysio.wiring import Wiring

NOBODY: frozenset[str] = frozenset()


@pytest.fixture
def wiring() -> Iterator[Wiring]:
    made = Wiring()
    yield made
    made.close()


def joined(one: socket.socket, other: socket.socket) -> bool:
    one.send(b"x")
    other.setblocking(False)
    try:
        return other.recv(1) == b"x"
    except BlockingIOError:
        return False


def test_end_waits_for_a_peer_not_yet_forked(wiring: Wiring) -> None:
    first = wiring.connect("clean", ["send"], NOBODY)
    assert first.for_peers == []
    assert wiring.leads("send", "clean")
    second = wiring.connect("send", ["clean"], frozenset({"clean"}))
    assert second.for_peers == []
    assert joined(first.own["send"], second.own["clean"])
    assert not wiring.leads("send", "clean")
    first.close()
    second.close()


def test_living_peer_is_to_be_sent_its_end(wiring: Wiring) -> None:
    ends = wiring.connect("remote0", ["send"], frozenset({"send"}))
    [(peer, theirs)] = ends.for_peers
    assert peer == "send"
    assert joined(ends.own["send"], theirs)
    ends.close()


def test_end_that_leads_to_a_dead_child_is_dropped(wiring: Wiring) -> None:
    dead = wiring.connect("clean", ["send"], NOBODY)
    wiring.drop("clean")
    again = wiring.connect("clean", ["send"], NOBODY)
    send = wiring.connect("send", ["clean"], frozenset({"clean"}))
    assert joined(again.own["send"], send.own["clean"])
    assert dead.own["send"].recv(1) == b""
    for ends in (dead, again, send):
        ends.close()


def test_classic_program_gets_a_stream_and_ours_packets(wiring: Wiring) -> None:
    ends = wiring.connect("send", ["classic-lspawn", "remote0"], NOBODY)
    assert ends.own["classic-lspawn"].type == socket.SOCK_STREAM
    assert ends.own["remote0"].type == socket.SOCK_SEQPACKET
    ends.close()


def test_ends_that_cannot_all_be_had_are_given_up(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []

    def pair() -> tuple[socket.socket, socket.socket]:
        if len(made) == 4:
            raise OSError(24, "Too many open files")
        made.extend(socket.socketpair())
        return made[-2], made[-1]

    monkeypatch.setattr(endpoint, "pair", pair)
    with pytest.raises(OSError, match="Too many"):
        wiring.connect("send", ["lookup", "lspawn"], NOBODY)
    wiring.drop("send")
    assert [sock.fileno() for sock in made] == [-1] * 4
