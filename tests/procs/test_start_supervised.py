"""start under a service manager: what it tells, and sockets that are handed over."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qsend.sysio.unixsocket import connect_to
from tests.procs.family import Event, Opener
from tests.servicemanager import ServiceManager, listening_tcp, listening_unix


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path / "notify") as made:
        yield made


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def few_extra(event: Event) -> bool:
    """Whether a child was given its sockets alone; send and clean have the lock."""
    want, found = event["want"], event["fds"]
    assert isinstance(want, list)
    assert isinstance(found, list)
    extra = len(set(found) - {0, 1, 2, *want})
    return extra == (1 if event["role"] in ("send", "clean") else 0)


def test_ready_is_told_when_everybody_serves(
    tree: Opener, home: Path, manager: ServiceManager
) -> None:
    (home / "remote1.fails").touch()
    made = tree(environ=manager.environ())
    made.wait("ready", 6)
    # It fails until this is gone; the tree is not ready before.
    made.wait("boot", 1, role="remote1")
    assert not any("READY" in words for words in manager.told)
    (home / "remote1.fails").unlink()
    made.wait("ready", 1, role="remote1")
    assert manager.hear() == {"READY": "1", "STATUS": "serving"}
    # The state of the queue follows, though nobody asked for signs of life.
    assert manager.wait("WATCHDOG")["STATUS"] == "send is fine"


def test_reload_and_stop_are_told(
    tree: Opener, home: Path, manager: ServiceManager
) -> None:
    made = tree(environ=manager.environ())
    made.up()
    manager.wait("READY")
    os.kill(made.pid, signal.SIGHUP)
    assert int(manager.wait("RELOADING")["MONOTONIC_USEC"]) > 0
    assert manager.wait("READY")["STATUS"] == "reread controls: generation 2"
    (home / "control/timeoutremote").write_text("soon\n")
    os.kill(made.pid, signal.SIGHUP)
    manager.wait("RELOADING")
    told = manager.wait("READY")["STATUS"]
    assert told.startswith("unable to reread controls: control/timeoutremote")
    os.kill(made.pid, signal.SIGTERM)
    # timeoutterm, send's margin, and twice what the others get.
    assert manager.wait("STOPPING") == {
        "STOPPING": "1", "EXTEND_TIMEOUT_USEC": "80000000", "STATUS": "exiting",
    }  # fmt: skip
    assert made.end() == 0


def test_signs_of_life_come_only_while_send_answers(
    tree: Opener, manager: ServiceManager
) -> None:
    made = tree(environ=manager.environ(watchdog_s=0.4))
    send = made.up()["send"]
    manager.wait("READY")
    for _ in range(3):
        assert manager.wait("WATCHDOG") == {"WATCHDOG": "1", "STATUS": "send is fine"}
    os.kill(send, signal.SIGSTOP)
    manager.silence(2.0)
    os.kill(send, signal.SIGCONT)
    manager.wait("WATCHDOG")
    # One that is replaced does not count as silent, nor does its successor.
    os.kill(send, signal.SIGSTOP)
    manager.silence(1.0)
    os.kill(send, signal.SIGKILL)
    made.wait("ready", 1, role="send")
    assert manager.wait("STATUS", "send is fine")["WATCHDOG"] == "1"
    os.kill(made.pid, signal.SIGTERM)
    manager.wait("STOPPING")
    assert made.end() == 0


def test_watchdog_of_another_process_is_not_ours(
    tree: Opener, manager: ServiceManager
) -> None:
    environ = {**manager.environ(watchdog_s=0.1), "WATCHDOG_PID": "1"}
    tree(environ=environ).up()
    manager.wait("READY")
    manager.wait("WATCHDOG")
    # The next status is half a minute away.
    assert manager.hear(1.0) is None


def test_failed_start_says_why(
    tree: Opener, home: Path, manager: ServiceManager
) -> None:
    (home / "control/me").unlink()
    made = tree(environ=manager.environ())
    assert made.end() == 100
    assert manager.hear() == {
        "STATUS": "cannot start: control/me: missing, and no control/locals"
    }


def test_children_do_not_have_the_socket_to_the_service_manager(
    tree: Opener, manager: ServiceManager
) -> None:
    made = tree(environ=manager.environ())
    made.up()
    manager.wait("READY")
    assert all(few_extra(event) for event in made.seen if event["what"] == "boot")


def test_injection_socket_that_is_lent_is_used_and_its_name_left(
    tree: Opener, home: Path, opened: ExitStack
) -> None:
    path = home / "run/enqueue.sock"
    ours = opened.enter_context(listening_unix(path))
    inode = path.stat().st_ino
    made = tree(lent=[ours])
    made.up()
    assert path.stat().st_ino == inode
    opened.enter_context(connect_to(str(path)))
    os.kill(made.pid, signal.SIGTERM)
    assert made.end() == 0
    # Who connects now waits for the next start.
    opened.enter_context(connect_to(str(path)))
    assert path.stat().st_ino == inode
    assert not (home / "run/control.sock").exists()


def test_sockets_of_no_use_are_given_back_and_told(
    tree: Opener, home: Path, opened: ExitStack
) -> None:
    tcp = opened.enter_context(listening_tcp())
    six = opened.enter_context(listening_tcp("::1"))
    deaf = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    elsewhere = opened.enter_context(listening_unix(home / "elsewhere"))
    pipe = os.pipe()
    file = opened.enter_context(os.fdopen(pipe[0], "rb"))
    os.close(pipe[1])
    names = [
        f"127.0.0.1:{tcp.getsockname()[1]}",
        f"[::1]:{six.getsockname()[1]}",
        "0.0.0.0:0",
        str(home / "elsewhere"),
    ]
    made = tree(lent=[tcp, six, deaf, elsewhere, file])
    made.up()
    assert all(few_extra(event) for event in made.seen if event["what"] == "boot")
    for name in names:
        made.wait_log(
            f"warning: {name} was handed over by the service manager, but no control "
            "file names it: nobody serves it\n".encode()
        )
