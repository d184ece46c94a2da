"""start over real forks with fake children: order, descriptors, lock, ground."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qsend.sysio.unixsocket import connect_to
from tests.procs.family import FAKES, ORDER, Opener, Tree, gone


def test_children_are_forked_in_order_with_their_own_descriptors(tree: Opener) -> None:
    boots = tree().wait("boot", 7)
    assert [boot["role"] for boot in sorted(boots, key=Tree.pid_of)] == ORDER
    socks = {boot["role"]: boot["socks"] for boot in boots}
    assert socks == {
        "enqueue": ["listen", "send", "start"],
        "lookup": ["listen", "lspawn", "send", "start"],
        "clean": ["send", "start"],
        "lspawn": ["lookup", "send", "start"],
        "remote0": ["send", "start"],
        "remote1": ["send", "start"],
        "send": [
            "clean", "control", "enqueue", "lookup", "lspawn", "remote0", "remote1",
            "start",
        ],
    }  # fmt: skip
    for boot in boots:
        want, found = boot["want"], boot["fds"]
        assert isinstance(want, list)
        assert isinstance(found, list)
        # send and clean hold the queue's lock, and nobody anything else.
        extra = set(found) - {0, 1, 2, *want}
        assert len(extra) == (1 if boot["role"] in ("send", "clean") else 0), boot
        assert set(want) < set(found)
        assert boot["cwd"] == "/"
        assert boot["null"] == "/dev/null"
        assert boot["same_log"]
        assert boot["leads"]
        assert boot["generation"] == 1


def test_every_pair_of_peers_is_joined(tree: Opener) -> None:
    met = tree().wait("met", 14)
    assert {(event["role"], event["name"], event["says"]) for event in met} == {
        pair
        for one, other in (
            ("send", "enqueue"), ("send", "clean"), ("send", "lspawn"),
            ("send", "remote0"), ("send", "remote1"), ("lspawn", "lookup"),
            ("send", "lookup"),
        )
        for pair in ((one, other, other), (other, one, one))
    }  # fmt: skip


def test_second_start_refuses_and_leaves_the_first_alone(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    made_home = made.home
    (made_home / "events").rename(made_home / "first")
    second = tree()
    assert second.end() == 111
    assert second.log == b"alert: cannot start: qmail-send is already running\n"
    (made_home / "events").unlink()
    (made_home / "first").rename(made_home / "events")
    os.kill(pids["send"], 0)
    connect_to(str(made_home / "run/control.sock")).close()


def test_lock_outlives_a_killed_start_until_its_heirs_end(
    tree: Opener, home: Path
) -> None:
    (home / "clean.hangs").touch()
    made = tree()
    pids = made.up()
    os.kill(made.pid, signal.SIGKILL)
    made.wait("closed", 7)
    second = subprocess.run(
        [sys.executable, "-c", LOCK, str(home)], capture_output=True, check=False
    )
    assert second.stdout == b"cannot start: qmail-send is already running\n"
    os.kill(pids["clean"], signal.SIGKILL)
    assert made.end() == -signal.SIGKILL
    assert gone(pids["send"])
    assert gone(pids["clean"])
    third = subprocess.run(
        [sys.executable, "-c", LOCK, str(home)], capture_output=True, check=False
    )
    assert third.stdout == b"locked\n"


LOCK = """
import sys
from qsend.core.errors import Fatal
from qsend.sysio.runlock import lock_queue
try:
    lock_queue(sys.argv[1] + "/queue")
    print("locked")
except Fatal as exc:
    print(exc)
"""


def test_sockets_have_the_modes_of_the_architecture(tree: Opener, home: Path) -> None:
    tree().up()
    modes = {
        name: stat.S_IMODE(os.stat(home / "run" / name).st_mode)
        for name in ("enqueue.sock", "control.sock")
    }
    assert modes == {"enqueue.sock": 0o666, "control.sock": 0o600}


def test_listening_socket_survives_enqueue(tree: Opener, home: Path) -> None:
    made = tree()
    pids = made.up()
    client = connect_to(str(home / "run/enqueue.sock"))
    os.kill(pids["enqueue"], signal.SIGKILL)
    made.wait("ready", role="enqueue")
    with client, connect_to(str(home / "run/enqueue.sock")):
        client.setblocking(False)
        # In the backlog still, and not reset.
        with pytest.raises(BlockingIOError):
            client.recv(1)


@pytest.mark.parametrize(
    ("spoil", "code", "line"),
    [
        (
            lambda home: (home / "control/patrn").write_text("x"),
            100,
            "alert: cannot start: control/patrn:1: expected an octal number",
        ),
        (
            lambda home: (home / "control/me").unlink(),
            100,
            "alert: cannot start: control/me: missing, and no control/locals",
        ),
        (
            lambda home: (home / "queue/todo").rmdir(),
            111,
            "alert: cannot start: HOME/queue/todo: expected a directory: No such file",
        ),
        (
            lambda home: (home / "queue/lock/sendmutex").unlink(),
            111,
            "alert: cannot start: HOME/queue/lock/sendmutex: expected a file: No such",
        ),
        (
            lambda home: (home / "queue/intd").chmod(0o777),
            111,
            "alert: cannot start: HOME/queue/intd: expected mode 0700, found 0777",
        ),
        (
            lambda home: (home / "run").rmdir(),
            111,
            "alert: cannot listen at HOME/run/control.sock: No such file",
        ),
    ],
)
def test_wrong_ground_is_one_clear_line(
    tree: Opener, home: Path, spoil: Callable[[Path], object], code: int, line: str
) -> None:
    spoil(home)
    made = tree()
    assert made.end() == code
    assert made.log.count(b"\n") == 1
    assert made.log.decode().startswith(line.replace("HOME", str(home)))


def test_all_kinds_have_a_fake() -> None:
    assert set(FAKES) == {role.rstrip("0123456789") for role in ORDER}
