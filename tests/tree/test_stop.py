"""`qsend stop`, what goes on after it, and who may start on a queue."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import psutil

from tests.ports import free_ports
from tests.tree.harness import Tree, until


def box(tree: Tree) -> Path:
    tree.alias("box", "./Maildir/\n")
    return tree.maildir()


def count(maildir: Path) -> int:
    return len(list((maildir / "new").iterdir()))


def refused_start(tree: Tree) -> subprocess.CompletedProcess[bytes]:
    """Run `qsend start` where it must not come up."""
    return tree.run("start", check=False)


def test_mail_is_taken_while_stopped_and_delivered_by_the_next_start(
    tree: Tree,
) -> None:
    maildir = box(tree)
    tree.start()
    [enqueue] = tree.pids("qmail-queue")
    assert tree.stop_by_command() == 0
    assert tree.log.endswith(b"status: local 0/10 remote 0/20\nstatus: exiting\n")
    assert b"warning" not in tree.log
    assert os.path.exists(f"/proc/{enqueue}")
    assert set(os.listdir(tree.home / "run")) == {"send", "milter", "enqueue.sock"}
    for uid in (None, 64_907 if os.getuid() == 0 else None):
        tree.queue([b"box@here.example"], uid=uid)
    assert tree.program("qmail-qstat").stdout == (
        b"messages in queue: 2\nmessages in queue but not yet preprocessed: 2\n"
    )
    assert count(maildir) == 0
    tree.start()
    tree.wait_for(rb"end msg \d+\n", count=2)
    assert count(maildir) == 2
    # The new tree has a new enqueue on the old socket; the old one has ended.
    until(lambda: not os.path.exists(f"/proc/{enqueue}"))
    assert len(tree.pids("qmail-queue")) == 1
    tree.queue([b"box@here.example"])
    tree.wait_for(rb"end msg \d+\n")
    assert count(maildir) == 3
    assert tree.stop() == 0


def test_listening_socket_is_handed_over_without_a_gap(tree: Tree) -> None:
    """Who injects while start takes over notices nothing."""
    maildir = box(tree)
    tree.start()
    for wanted in (5, 10, 15):
        assert tree.stop_by_command() == 0
        command = [str(tree.home / "bin/qmail-inject"), "box@here.example"]
        env = {"PATH": os.environ["PATH"], "QSEND_HOME": str(tree.home)}
        injectors = [
            subprocess.Popen(command, stdin=subprocess.DEVNULL, env=env, cwd="/")
            for _ in range(5)
        ]
        tree.start()
        assert [each.wait(60) for each in injectors] == [0] * 5
        tree.wait_for(rb"end msg \d+\n", count=5)
        assert count(maildir) == wanted
    assert tree.stop() == 0
    assert not tree.queue_files()


def test_stop_all_ends_enqueue_too_running_or_left_behind(tree: Tree) -> None:
    tree.start()
    members = tree.family()
    done = tree.run("stop", "--all")
    assert done.stdout == f"{tree.home}: stopped\n".encode()
    assert tree.wait() == 0
    assert not any(each.is_running() for each in members)
    assert set(os.listdir(tree.home / "run")) == {"send", "milter"}
    again = tree.run("stop", check=False)
    assert (again.returncode, again.stdout) == (
        0,
        f"{tree.home}: is not running\n".encode(),
    )
    tree.start()
    [enqueue] = tree.pids("qmail-queue")
    tree.stop_by_command()
    assert tree.ask("stop", "--all") == {"stopped": True}
    until(lambda: not os.path.exists(f"/proc/{enqueue}"))
    assert set(os.listdir(tree.home / "run")) == {"send", "milter"}


def test_second_start_on_a_queue_refuses_in_one_line(tree: Tree) -> None:
    maildir = box(tree)
    tree.start()
    done = refused_start(tree)
    assert done.returncode == 111
    assert done.stdout == b"alert: cannot start: qmail-send is already running\n"
    assert done.stderr == b""
    # The first did not notice.
    assert tree.ask("status")["exiting"] is False
    tree.queue([b"box@here.example"])
    tree.wait_for(rb"end msg \d+\n")
    assert count(maildir) == 1
    assert tree.stop() == 0


def test_classic_qmail_send_and_start_shut_each_other_out(tree: Tree) -> None:
    """Both take an exclusive flock of lock/sendmutex."""
    mutex = tree.home / "queue/lock/sendmutex"
    with mutex.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        done = refused_start(tree)
        assert done.returncode == 111
        assert done.stdout == b"alert: cannot start: qmail-send is already running\n"
    tree.start()
    with mutex.open("wb") as wanted:
        try:
            fcntl.flock(wanted, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = True
        except BlockingIOError:
            taken = False
        assert not taken
        assert tree.stop_by_command() == 0
        # enqueue, which goes on, is none that the lock is about.
        fcntl.flock(wanted, fcntl.LOCK_EX | fcntl.LOCK_NB)


LISTENERS = ("pop3d", "smtpd", "qmtpd")
WAIT_FOR_THE_END_OF_START = """
import os, select
from qsend.sysio.aiolistener import AioListener
first = AioListener.__init__
def init(self, *args):
    start = os.getppid()
    os.write(2, b"opening\\n")
    while os.getppid() == start:
        select.select([], [], [], 0.01)
    first(self, *args)
AioListener.__init__ = init
"""


def test_listeners_end_when_start_dies_while_they_open_their_sockets(
    tree: Tree,
) -> None:
    ports = free_ports(len(LISTENERS))
    for name, port in zip(("pop3", "smtp", "qmtp"), ports, strict=True):
        tree.control(f"{name}listen", f"127.0.0.1:{port}\n")
        if name != "pop3":
            tree.control(f"tcp.{name}", "127.:allow\n")
            tree.run("tcprules", name)
    tree.start(until=b"opening\n", patch=WAIT_FOR_THE_END_OF_START)

    def are_opening() -> bool:
        tree.watch(0.1)
        found = [tree.pids(f"qmail-{name}") for name in LISTENERS]
        return all(found) and tree.log.count(b"opening\n") >= sum(map(len, found))

    until(are_opening)
    family = tree.family()
    tree.signal(signal.SIGKILL)
    assert tree.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(family, timeout=30)
    for each in alive:
        each.kill()
    assert not alive
