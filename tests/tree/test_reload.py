"""HUP and `qsend reload`: new controls in all processes, or in none."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.mariadb import Database
from tests.smtppeer import LOCKSTEP, Odd, Peer
from tests.tree.harness import Tree, until
from tests.tree.virtualmail import VirtualMail


def reload(tree: Tree, generation: int) -> None:
    """HUP, and wait until send has the new controls."""
    tree.signal(signal.SIGHUP)
    tree.find(rb"(?m)^reread controls: generation %d$" % generation)
    until(lambda: tree.ask("status")["generation"] == generation)


def started(tree: Tree, recip: bytes) -> bytes:
    """Queue a message for one recipient: where the tree sends it."""
    tree.queue([recip], sender=b"#@[]")
    return tree.wait_for(rb"starting delivery \d+: msg \d+ to (.*)\n")[1]


def test_new_messages_go_where_the_new_controls_say(tree: Tree) -> None:
    with Peer(LOCKSTEP) as old, Peer(LOCKSTEP) as new:
        tree.control("smtproutes", f":127.0.0.1:{old.port}\n")
        tree.start()
        # Held: what is queued keeps what was decided, but its route.
        tree.run("hold", "local")
        tree.queue([b"kept@here.example"], sender=b"#@[]")
        tree.new_messid()
        assert started(tree, b"a@x.example") == b"remote a@x.example"
        tree.wait_for(rb"delivery 1: success: ")
        tree.control("locals", "other.example\n")
        tree.control("virtualdomains", "v.example:virtual\n")
        tree.control("percenthack", "x.example\n")
        tree.control("envnoathost", "bare.example\n")
        tree.control("smtproutes", f":127.0.0.1:{new.port}\n")
        reload(tree, 2)
        assert started(tree, b"a@x.example") == b"remote a@x.example"
        assert started(tree, b"b@here.example") == b"remote b@here.example"
        assert started(tree, b"c%y.example@x.example") == b"remote c@y.example"
        assert started(tree, b"d") == b"remote d@bare.example"
        tree.run("release", "local")
        tree.wait_for(rb"starting delivery \d+: msg \d+ to local kept@here.example\n")
        assert started(tree, b"b@other.example") == b"local b@other.example"
        assert started(tree, b"b@v.example") == b"local virtual-b@v.example"
        assert tree.stop() == 0
    assert len(old.contents) == 1
    assert len(new.contents) == 4


def test_limits_and_timeouts_change_in_their_processes(tree: Tree) -> None:
    tree.alias("writable", "./Mailbox\n").chmod(0o646)
    with Peer(LOCKSTEP | {"MAIL": Odd.SILENCE}) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.queue([b"writable@here.example"])
        # This one starts the child that is to learn of the new patrn.
        tree.wait_for(rb"delivery 1: deferral: .*\(#4\.7\.0\)/\n")
        for name, value in (
            ("concurrencylocal", "3"),
            ("concurrencyremote", "4"),
            ("timeoutremote", "1"),
            ("patrn", "0"),
            ("queueminfree", str(2**62)),
            ("helohost", "new.helo.example"),
        ):
            tree.control(name, value + "\n")
        reload(tree, 2)
        tree.find(rb"\nstatus: local 0/3 remote 0/4\n")
        limits = [each["limit"] for each in tree.ask("status")["channels"].values()]
        assert limits == [3, 4]
        tree.signal(signal.SIGALRM)
        tree.wait_for(rb"delivery 2: success: did_1\+0\+0/\n")
        # enqueue has it too: there is not so much room.
        with pytest.raises(AssertionError):
            tree.queue([b"a@x.example"])
        assert tree.program("qmail-inject", "a@x.example").returncode == 111
        tree.control("queueminfree", None)
        reload(tree, 3)
        tree.queue([b"a@x.example"])
        tree.wait_for(rb"delivery 3: deferral: ")
        assert peer.commands[0] == b"EHLO new.helo.example"
        # timeoutterm belongs to start and send.
        tree.control("timeoutremote", None)
        tree.control("timeoutterm", "0\n")
        reload(tree, 4)
        tree.signal(signal.SIGALRM)
        tree.wait_for(rb"starting delivery 4: ")
        assert tree.stop() == 0
    assert b"delivery 4: deferral" not in tree.log


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("virtualdomains", "v.example:a\n\nno colon\n", "expected key:value, found"),
        ("concurrencyremote", "many\n", "expected a number"),
        ("smtproutes", ":127.0.0.1:notaport\n", "expected"),
    ],
)
def test_one_bad_file_keeps_the_old_everywhere(
    tree: Tree, name: str, content: str, fault: str
) -> None:
    with Peer(LOCKSTEP) as old, Peer(LOCKSTEP) as new:
        tree.control("smtproutes", f":127.0.0.1:{old.port}\n")
        tree.start()
        tree.control("smtproutes", f":127.0.0.1:{new.port}\n")
        tree.control("locals", "other.example\n")
        tree.control("helohost", "new.helo.example\n")
        tree.control(name, content)
        tree.signal(signal.SIGHUP)
        line = content.count("\n")
        tree.wait_for(
            rb"alert: unable to reread controls: control/%b:%d: %b"
            % (name.encode(), line, fault.encode())
        )
        assert started(tree, b"a@here.example") == b"local a@here.example"
        assert started(tree, b"a@x.example") == b"remote a@x.example"
        tree.find(rb"\ndelivery \d+: success: 127")
        # By command: the same words, and exit code 100.
        done = tree.run("reload", check=False)
        assert done.returncode == 100
        said = done.stderr.decode()
        assert said.startswith(f"qsend reload: control/{name}:{line}: {fault}")
        assert said.count("\n") == 1
        assert tree.ask("status")["generation"] == 1
        # Mended, everything comes at once.
        tree.control(name, None)
        if name != "smtproutes":
            tree.control("smtproutes", f":127.0.0.1:{new.port}\n")
        assert tree.ask("reload") == {"generation": 2}
        assert tree.run("reload").stdout == b"controls of generation 3 are in force\n"
        tree.control("smtproutes", f":127.0.0.1:{new.port}\n")
        reload(tree, 4)
        assert started(tree, b"a@here.example") == b"remote a@here.example"
        tree.stop()
    assert old.commands[0] == b"EHLO here.example"
    assert new.commands[0] == b"EHLO new.helo.example"


def test_replaced_children_have_the_controls_in_force(tree: Tree) -> None:
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.control("helohost", "second.example\n")
        tree.control("locals", "second.example\n")
        reload(tree, 2)
        # What lies there broken meanwhile is nobody's business.
        tree.control("helohost", "th ird\n")
        tree.control("locals", "third.example\n")
        remotes = tree.pids("qmail-remote")
        for pid in (*remotes, *tree.pids("qmail-send")):
            os.kill(pid, signal.SIGKILL)
        tree.wait_for(rb"warning: lost qmail-send ")
        tree.wait_for(rb"status: local 0/")
        until(lambda: len(tree.pids("qmail-remote")) == len(remotes))
        assert not set(remotes) & set(tree.pids("qmail-remote"))
        assert started(tree, b"a@third.example") == b"remote a@third.example"
        tree.wait_for(rb"delivery \d+: success: ")
        assert started(tree, b"a@second.example") == b"local a@second.example"
        tree.stop()
    assert peer.commands[0] == b"EHLO second.example"


def test_a_control_that_is_no_file_is_said_and_changes_nothing(tree: Tree) -> None:
    tree.start()
    (tree.home / "control/concurrencylocal").mkdir()
    tree.signal(signal.SIGHUP)
    tree.wait_for(rb"alert: unable to reread controls: control/concurrencylocal")
    (tree.home / "control/concurrencylocal").rmdir()
    subprocess.run(["truncate", "-s", "1T", tree.home / "control/locals"], check=True)
    tree.signal(signal.SIGHUP)
    tree.wait_for(rb"alert: unable to reread controls: control/locals")
    assert tree.ask("status")["generation"] == 1
    assert tree.stop() == 0


@pytest.mark.root
def test_database_that_lookup_has_not_heard_of_is_waited_for(
    tree: Tree, database: Database, open_tmp: Path
) -> None:
    virtual = VirtualMail(tree, database, open_tmp / "mail")
    tree.control("sqlserver", None)
    virtual.add("ann")
    database.insert("virtual", ("ann", "", "sales", "virtual.example"))
    tree.start("--default-delivery", "./Maildir/")
    until(lambda: len(tree.pids("qmail-lookup")) == 1)
    [lookup] = map(psutil.Process, tree.pids("qmail-lookup"))
    lookup.suspend()
    try:
        virtual.use(database.sqlserver)
        reload(tree, 2)
        tree.queue([b"sales@virtual.example"], sender=b"#@[]")
    finally:
        lookup.resume()
    reports = tree.reports(b"ann@virtual.example")
    assert reports == [b"success: did_1+0+0/"]
    assert b"to remote" not in tree.log
    # And without it again, nobody waits for what is not there any more.
    tree.control("sqlserver", None)
    reload(tree, 3)
    tree.queue([b"ann@here.example"], sender=b"#@[]")
    tree.wait_for(rb"starting delivery \d+: msg \d+ to local ann@here.example\n")
