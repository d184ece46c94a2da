from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qsend.sysio import clock
from qsend.sysio.acceptor import Acceptor
from qsend.sysio.loop import Loop
from qsend.sysio.unixsocket import connect_to, listen_at
from tests.localtree import limit_leaving

DEADLINE_S = 20.0


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None is left to this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit_leaving(0), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_shortage_of_descriptors_keeps_clients_waiting_without_a_spin(
    tmp_path: Path,
) -> None:
    loop, clients = Loop(), list[socket.socket]()
    path = str(tmp_path / "sock")
    acceptor = Acceptor(loop, listen_at(path, 0o600), clients.append)
    sock = connect_to(path)
    with no_descriptors():
        turns, end_mono = 0, clock.mono() + 1
        while (left_s := end_mono - clock.mono()) > 0:
            loop.turn(left_s)
            turns += 1
        assert turns < 20
    assert not clients
    end_mono = clock.mono() + DEADLINE_S
    while not clients:
        assert clock.mono() < end_mono
        loop.turn(0.1)
    listener = acceptor.release()
    assert listener is not None
    assert acceptor.release() is None
    for each in (sock, listener, *clients):
        each.close()
    loop.close()


def test_release_while_it_looks_away_is_for_good(tmp_path: Path) -> None:
    loop, clients = Loop(), list[socket.socket]()
    path = str(tmp_path / "sock")
    acceptor = Acceptor(loop, listen_at(path, 0o600), clients.append)
    sock = connect_to(path)
    with no_descriptors():
        loop.turn(1)
    listener = acceptor.release()
    assert listener is not None
    for _ in range(5):
        loop.turn(0.1)
    assert not clients
    for each in (sock, listener):
        each.close()
    loop.close()
