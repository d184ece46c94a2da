"""Each kind of child is killed once: it is replaced, its deliveries are tried again,
nobody else notices; a message that crashes its delivery process is held."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.procs.family import gone, until
from tests.smtppeer import PIPELINED, Peer
from tests.tree.harness import HOST, Tree

pytestmark = pytest.mark.root

SLOW = "|while ! test -e open; do sleep 0.02; done\n./Maildir/\n"
"""Delivers once the test has made ~alias/open."""
LOST = rb"delivery 1: deferral: The_delivery_process_was_lost\._\(#4\.3\.0\)/\n"
FAST_CHECKS = "from qsend.sysio import spawners; spawners.CHECK_S = 0.2"
FAST_BRAKE = (
    "from qsend.core.startoptions import StartOptions;"
    "StartOptions.__init__.__kwdefaults__['pace'] = 0.02"
)


@dataclass(frozen=True, slots=True)
class World:
    """A tree with a host that does not answer the final dot, one that does, and a
    mailbox whose program does not end; until they are let go."""

    tree: Tree
    hanging: Peer
    good: Peer
    maildir: Path

    def start(self, patch: str = "") -> None:
        self.tree.start(patch=patch)

    def send(self, *recips: str) -> None:
        self.tree.send([os.fsencode(each) for each in recips])

    def hang_remote(self) -> int:
        """Delivery to the host that does not answer; the message's number."""
        self.send("a@hanging.example")
        said = self.tree.wait_for(rb"starting delivery \d+: msg (\d+) to remote a@hang")
        self.hanging.wait_at_gate()
        return int(said[1])

    def hang_local(self) -> None:
        """Delivery to the mailbox whose program does not end."""
        self.send(f"slow@{HOST}")
        self.tree.wait_for(rb"starting delivery \d+: msg \d+ to local slow@")
        assert until(self._runs_program)

    def local(self) -> int:
        """The pid of the one local child; 0 for none."""
        [lspawn] = self.tree.pids("qmail-lspawn")
        for each in psutil.Process(lspawn).children():
            return each.pid
        return 0

    def _runs_program(self) -> bool:
        local = self.local()
        return bool(local and psutil.Process(local).children())

    def let_go(self) -> None:
        """Whatever hangs goes on."""
        self.hanging.open_gate()
        (self.maildir.parent / "open").touch()

    def arrived(self) -> int:
        """Messages in the Maildir."""
        return len(list((self.maildir / "new").iterdir()))

    def remote_at(self, peer: Peer) -> int:
        """The pid of the remote process with a connection to a peer."""
        for pid in self.tree.pids("qmail-remote"):
            for each in psutil.Process(pid).net_connections("tcp"):
                if each.raddr and each.raddr.port == peer.port:
                    return pid
        raise AssertionError("no remote is connected")


@pytest.fixture
def world(tree: Tree) -> Iterator[World]:
    with Peer(PIPELINED, gate="DOT") as hanging, Peer(PIPELINED) as good:
        routes = {"hanging.example": hanging.port, "good.example": good.port}
        tree.control(
            "smtproutes",
            "".join(f"{name}:127.0.0.1:{port}\n" for name, port in routes.items()),
        )
        tree.alias("box", "./Maildir/\n")
        tree.alias("slow", SLOW)
        yield World(tree, hanging, good, tree.maildir())


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_and_wait(tree: Tree, name: str, pid: int, deferral: bytes) -> None:
    """Kill a child; it is told of and replaced, and its delivery deferred."""
    count = len(tree.pids(name))
    kill(pid)
    lost = rb"warning: lost %b \(killed by signal 9\), starting it again\n"
    # start and send say so in any order.
    tree.wait_for(rb"(?:%b|%b)" % (lost % name.encode(), deferral), 2)
    assert gone(pid)
    assert until(lambda: len(tree.pids(name)) == count)


def test_killed_remote_is_replaced_and_its_delivery_tried_again(world: World) -> None:
    tree = world.tree
    world.start()
    world.hang_remote()
    world.hang_local()
    kill_and_wait(tree, "qmail-remote", world.remote_at(world.hanging), LOST)
    world.send("b@good.example")
    tree.wait_for(rb"delivery 3: success")
    world.let_go()
    tree.wait_for(rb"delivery 2: success")
    assert world.arrived() == 1
    tree.run("flush", "all")
    tree.wait_for(rb"starting delivery 4: msg \d+ to remote a@hanging")
    tree.wait_for(rb"delivery 4: success(?s:.*)end msg")
    assert tree.stop() == 0
    assert not tree.queue_files()
    assert len(world.hanging.contents) == 2


def test_killed_lspawn_is_replaced_and_its_deliveries_tried_again(world: World) -> None:
    tree = world.tree
    world.start()
    world.hang_local()
    world.hang_remote()
    [lspawn] = tree.pids("qmail-lspawn")
    kill_and_wait(tree, "qmail-lspawn", lspawn, LOST)
    world.send(f"box@{HOST}")
    tree.wait_for(rb"delivery 3: success")
    world.let_go()
    tree.wait_for(rb"delivery 2: success")
    tree.run("flush", "all")
    tree.wait_for(rb"delivery 4: success(?s:.*)end msg")
    assert tree.stop() == 0
    assert world.arrived() == 2
    assert not tree.queue_files()


def test_killed_local_child_loses_only_its_own_deliveries(world: World) -> None:
    tree = world.tree
    world.start()
    world.hang_local()
    world.hang_remote()
    kill(world.local())
    tree.wait_for(rb"delivery 1: deferral: The_delivery_process_crashed")
    world.send(f"box@{HOST}")
    tree.wait_for(rb"delivery 3: success")
    tree.run("flush", "all")
    tree.wait_for(rb"starting delivery 4: ")
    world.let_go()
    tree.wait_for(rb"(?:delivery [24]: success(?s:.*)){2}")
    assert tree.stop() == 0
    assert world.arrived() == 2
    assert not tree.queue_files()
    assert b"alert:" not in tree.log


def test_killed_lookup_is_replaced_and_its_questions_asked_again(world: World) -> None:
    tree = world.tree
    world.start()
    world.hang_remote()
    [old] = tree.pids("qmail-lookup")
    os.kill(old, signal.SIGSTOP)
    world.send(f"box@{HOST}")
    tree.wait_for(rb"starting delivery 2: ")
    deferral = rb"delivery 2: deferral: the_user_lookup_is_not_running"
    kill_and_wait(tree, "qmail-lookup", old, deferral)
    tree.run("flush", "all")
    world.let_go()
    tree.wait_for(rb"delivery 3: success")
    assert tree.stop() == 0
    assert world.arrived() == 1
    assert not tree.queue_files()


def test_killed_enqueue_is_replaced_and_clients_may_try_again(world: World) -> None:
    tree = world.tree
    world.start()
    world.hang_remote()
    [old] = tree.pids("qmail-queue")
    os.kill(old, signal.SIGSTOP)
    with subprocess.Popen(
        [tree.home / "bin/qmail-queue"],
        stdin=subprocess.DEVNULL,
        stdout=(envelope := _envelope(b"box@here.example")),
        env={"QSEND_HOME": str(tree.home), "PATH": os.environ["PATH"]},
    ) as client:
        os.close(envelope)
        assert until(lambda: _is_connected(client.pid))
        kill_and_wait(tree, "qmail-queue", old, b"(?!)|(?<=again\\n)")
        # Not yet accepted: the next enqueue takes it from the socket's backlog.
        assert client.wait(30) == 0
    world.send(f"box@{HOST}")
    world.let_go()
    tree.wait_for(rb"end msg", 3)
    assert tree.stop() == 0
    assert world.arrived() == 2


def _envelope(recip: bytes) -> int:
    read, write = os.pipe()
    os.write(write, b"Fme@x.example\0T%b\0\0" % recip)
    os.close(write)
    return read


def _is_connected(pid: int) -> bool:
    fds = Path(f"/proc/{pid}/fd")
    try:
        return any(os.readlink(fd).startswith("socket:") for fd in fds.iterdir())
    except OSError:
        return False


@pytest.mark.parametrize("name", ["qmail-send", "qmail-clean"])
def test_killed_send_or_clean_comes_back_as_a_pair(world: World, name: str) -> None:
    tree = world.tree
    world.start()
    world.hang_remote()
    world.hang_local()
    before = {each: tree.pids(each) for each in ("qmail-send", "qmail-clean")}
    others = [pid for each in OTHERS for pid in tree.pids(each)]
    kill(before[name][0])
    tree.wait_for(rb"warning: lost %b \(killed by signal 9\)" % name.encode())
    tree.wait_for(rb"starting delivery 1: ")
    for each, old in before.items():
        assert not set(old) & set(tree.pids(each))
    assert others == [pid for each in OTHERS for pid in tree.pids(each)]
    world.let_go()
    tree.wait_for(rb"delivery \d+: success", 2)
    assert until(lambda: world.arrived() >= 1)
    assert len(world.hanging.contents) >= 1


OTHERS = ("qmail-queue", "qmail-lookup", "qmail-lspawn", "qmail-remote")


DEAF = """
from qsend.core.errors import RemoteProtocolError
from qsend.procs.remote import Remote
first, said = Remote._deliver, []
def deliver(self, transaction, *more):
    if transaction.recips[0][1].startswith(b"deaf"):
        raise RemoteProtocolError("not this")
    first(self, transaction, *more)
Remote._deliver = deliver
"""
"""A remote that closes its line over some mail, and goes on without."""


def test_spawner_that_only_closed_its_line_is_replaced(world: World) -> None:
    tree = world.tree
    world.start(patch=FAST_CHECKS + DEAF)
    pids = set(tree.pids("qmail-remote"))
    world.send("deaf@good.example")
    lost = tree.wait_for(rb"warning: lost (remote\d): closed\n")[1]
    tree.find(rb"warning: %b does not answer; it will be killed\n" % lost)
    tree.find(rb"lost qmail-remote \(killed by signal 9\), starting it again\n")
    assert until(lambda: len(set(tree.pids("qmail-remote")) & pids) == len(pids) - 1)
    assert until(lambda: len(tree.pids("qmail-remote")) == len(pids))
    # Of two processes each gets one of two messages at a time.
    for recip in ("a@hanging.example", "b@hanging.example"):
        world.send(recip)
    assert until(lambda: len(world.hanging.served) == 2)
    world.let_go()
    tree.wait_for(rb"success: 127", 2)
    assert tree.stop() == 0


POISON = """
import os, signal
from qsend.sysio.localdelivery import Deliverer
first = Deliverer.steps
def steps(self, delivery, mess_fd):
    if delivery.local == b"poison":
        os.kill(os.getpid(), signal.SIGKILL)
    return first(self, delivery, mess_fd)
Deliverer.steps = steps
"""
"""Local children die of mail for poison."""


def test_mail_that_kills_its_local_child_is_tried_alone_and_returned_in_the_end(
    world: World,
) -> None:
    tree = world.tree
    tree.alias("poison", "./Maildir/\n")
    tree.alias("back", "./Maildir/\n")
    tree.control("queuelifetime", "5\n")
    world.start(patch=POISON)
    tree.queue([b"poison@here.example"], sender=b"back@here.example")
    tree.wait_for(rb"delivery 1: deferral: The_delivery_process_crashed")
    # Others of the same user are delivered while it is tried, in another child.
    world.send(f"box@{HOST}")
    tree.run("flush", "all")
    tree.wait_for(rb"success: did_1")
    tree.wait_for(rb"to local poison@here\.example\n(?s:.*)process_crashed")

    def is_over() -> bool:
        tree.run("flush", "all")
        tree.watch(0.2)
        return b"I'm_not_going_to_try_again" in tree.log

    assert until(is_over)
    tree.wait_for(rb"to local back@here\.example\n(?s:.*)success: did_1")
    assert world.arrived() == 2
    assert b"alert" not in tree.log
    assert tree.stop() == 0
    assert not tree.queue_files()


def test_user_that_kills_his_child_holds_up_nobody_else(world: World) -> None:
    tree = world.tree
    tree.alias("killer", "|kill -9 $PPID\n")
    world.start()
    world.send(f"killer@{HOST}")
    tree.wait_for(rb"delivery 1: deferral: The_delivery_process_crashed")
    world.hang_local()
    for attempt in (3, 4):
        # Alone: the child that has slow's delivery is another.
        tree.run("flush", "all")
        tree.wait_for(rb"delivery %d: deferral: The_delivery_process_cr" % attempt)
    world.send(f"box@{HOST}")
    tree.wait_for(rb"delivery 5: success")
    world.let_go()
    tree.wait_for(rb"delivery 2: success")
    assert world.arrived() == 2
    assert b"alert:" not in tree.log
    assert tree.stop() == 0


def test_message_that_crashes_remote_twice_is_held_and_others_go_on(
    world: World,
) -> None:
    tree = world.tree
    world.start()
    messid = world.hang_remote()
    kill(world.remote_at(world.hanging))
    tree.wait_for(LOST)
    family = set(tree.pids("qmail-remote"))
    tree.run("flush", "all")
    tree.wait_for(rb"starting delivery 2: msg %d " % messid)
    assert until(lambda: len(world.hanging.served) == 2)
    alone = world.remote_at(world.hanging)
    assert alone not in family
    world.send("b@good.example")
    tree.wait_for(rb"delivery 3: success")
    kill(alone)
    tree.wait_for(rb"alert: message %d is held: its delivery crashed twice\n" % messid)
    tree.wait_for(rb"delivery 2: deferral: The_delivery_process_was_lost")
    tree.run("flush", "all")
    world.send("c@good.example")
    tree.wait_for(rb"delivery 4: success")
    assert tree.ask("status")["held"] == [f"mess:{messid}"]
    world.let_go()
    tree.run("release", f"mess:{messid}")
    tree.wait_for(rb"starting delivery 5: msg %d (?s:.*)delivery 5: success" % messid)
    assert tree.stop() == 0
    assert not tree.queue_files()


@pytest.mark.parametrize("name", ["qmail-remote", "qmail-lspawn"])
def test_stopped_process_with_deliveries_is_killed_and_replaced(
    world: World, name: str
) -> None:
    tree = world.tree
    world.start(patch=FAST_CHECKS)
    world.hang_remote()
    world.hang_local()
    role, victim = "lspawn", tree.pids("qmail-lspawn")[0]
    if name == "qmail-remote":
        role, victim = r"remote\d", world.remote_at(world.hanging)
    os.kill(victim, signal.SIGSTOP)
    tree.wait_for(rb"warning: %b does not answer; it will be killed\n" % role.encode())
    tree.wait_for(rb"delivery [12]: deferral: The_delivery_process_was_lost")
    world.let_go()
    tree.wait_for(rb"delivery [12]: success")
    tree.run("flush", "all")
    tree.wait_for(rb"delivery 3: success(?s:.*)end msg")
    assert b"lost %b (killed by signal 9)" % name.encode() in tree.log
    assert tree.stop() == 0
    assert not tree.queue_files()


@pytest.mark.parametrize("stopped", ["qmail-remote", "qmail-lspawn"])
def test_stopped_process_without_deliveries_is_left_alone(
    world: World, stopped: str
) -> None:
    tree = world.tree
    world.start(patch=FAST_CHECKS)
    pids = tree.pids(stopped)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    if stopped == "qmail-lspawn":
        world.send("b@good.example")
    else:
        world.send(f"box@{HOST}")
    tree.wait_for(rb"end msg")
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert tree.pids(stopped) == pids
    assert tree.stop() == 0
    assert b"warning" not in tree.log


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("qmail-clean", "queue"),
        ("qmail-lspawn", "queue/mess"),
        ("qmail-send", "queue/info"),
    ],
)
def test_child_that_cannot_boot_again_ends_the_tree(
    tree: Tree, name: str, missing: str
) -> None:
    tree.start(patch=FAST_BRAKE)
    [victim] = tree.pids(name)
    (tree.home / missing).rename(tree.home / "away")
    kill(victim)
    assert tree.wait() == 111
    why = rb"ended before it was ready, again and again; giving up"
    said = re.findall(rb"^alert: cannot start: (\S+) %b$" % why, tree.log, re.MULTILINE)
    # Of send and clean, either may be the one that failed five times.
    assert said in ([name.encode()], [b"qmail-send"])


def test_programs_that_hang_leave_slots_to_other_users(world: World) -> None:
    tree = world.tree
    tree.control("concurrencylocal", "8\n")
    tree.control("concurrencyperuser", "8\n")
    world.start()
    for ext in range(12):
        tree.alias(f"slow-{ext}", SLOW)
        world.send(f"slow-{ext}@{HOST}")
    tree.wait_for(rb"status: local 6/8 ")
    world.send(f"box@{HOST}")
    tree.wait_for(rb"to local box@(?s:.*)delivery 7: success")
    world.let_go()
    tree.wait_for(rb"delivery \d+: success", 12)
    assert tree.stop() == 0
    assert world.arrived() == 13
