"""Which process gets which listening socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from qsend.core.errors import Fatal
from qsend.core.family import plan
from qsend.sysio import listening
from qsend.sysio.listening import Listening
from tests.ports import free_port

COUNTS = {"pop3listen": 1, "smtplisten": 2, "qmtplisten": 1, "qmqplisten": 2}
NAMES = [f"{name}{number}" for name, count in COUNTS.items() for number in range(count)]


@pytest.fixture
def opened() -> Iterator[Listening]:
    files = {
        name: b"".join(b"127.0.0.1:%d\n" % free_port() for _ in range(count))
        for name, count in COUNTS.items()
    }
    made = listening.open_all({"me": b"here.example", **files}, 3)
    yield made
    made.close()


def test_each_process_gets_its_own_and_none_is_left_over(opened: Listening) -> None:
    roles = plan(2, pop3=True, smtp=3, qmtp=True).roles
    given = {role: opened.of(role) for role in (*roles, "isolated17")}
    smtp = {"smtplisten0", "smtplisten1"}
    assert {role: set(socks) for role, socks in given.items() if socks} == {
        "pop3d": {"pop3listen0"},
        "qmtpd": {"qmtplisten0", "qmqplisten0", "qmqplisten1"},
        **dict.fromkeys(("smtpd0", "smtpd1", "smtpd2"), smtp),
    }
    handed = [sock for socks in given.values() for sock in socks.values()]
    assert len(set(handed)) == len(handed) == len(NAMES) + 2 * len(smtp)


def test_processes_are_as_many_as_listen(opened: Listening) -> None:
    counts = {kind: opened.processes(kind) for kind in ("pop3d", "smtpd", "qmtpd")}
    assert counts == {"pop3d": 1, "smtpd": 3, "qmtpd": 1}
    none = listening.open_all({"me": b"here.example"}, 3)
    assert [none.processes(kind) for kind in counts] == [0, 0, 0]


def test_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        line = f"127.0.0.1:{sock.getsockname()[1]}"
        files = {"me": b"here.example", "qmqplisten": f"{line}\n".encode()}
        with pytest.raises(Fatal, match=f"unable to listen on {line}"):
            listening.open_all(files, 1)


def test_change_of_any_such_file_is_told() -> None:
    old = {"qmtplisten": b"1.2.3.4:5\n", "pop3listen": b"x", "me": b"a"}
    new = {"qmqplisten": b"1.2.3.4:5\n", "pop3listen": b"x", "me": b"b"}
    assert list(listening.changed(old, new)) == ["qmtplisten", "qmqplisten"]
