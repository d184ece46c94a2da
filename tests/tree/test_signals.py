"""Signals to start and to send: TERM, INT, ALRM, HUP."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from qsend.core.model import Channel, MessId
from qsend.formats import paths
from qsend.sysio import clock
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree, first_dues, until

EITHER = pytest.mark.parametrize("target", ["qmail-start", "qmail-send"])


def tell(tree: Tree, target: str, signum: int) -> None:
    """Send a signal to start or to send."""
    [pid] = tree.pids(target)
    os.kill(pid, signum)


def trouble(tree: Tree) -> list[bytes]:
    """Lines of the log that tell of more than mail."""
    marks = (b"alert", b"warning")
    return [each for each in tree.log.splitlines() if each.startswith(marks)]


def recips_file(tree: Tree, channel: Channel, messid: int) -> Path:
    return tree.home / "queue" / paths.recips(channel, MessId(messid))


@EITHER
def test_term_waits_for_what_runs_and_starts_nothing(tree: Tree, target: str) -> None:
    tree.alias("later", "|exit 111\n")
    tree.alias("box", "./Maildir/\n")
    maildir = tree.maildir()
    tree.control("concurrencyremote", "1\n")
    with Peer(LOCKSTEP, gate="DOT") as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.queue([b"later@here.example"])
        deferred = tree.new_messid()
        tree.wait_for(rb"delivery 1: deferral: \n")
        tree.queue([b"a@x.example"])
        running = tree.new_messid()
        peer.wait_at_gate()
        tree.queue([b"b@y.example"])
        waiting = tree.new_messid()
        tell(tree, target, signal.SIGTERM)
        tree.wait_for(rb"status: local 0/10 remote 1/1 exitasap\n")
        # Mail that comes now is taken, and waits for the next start.
        tree.queue([b"box@here.example"])
        peer.open_gate()
        tree.wait_for(rb"delivery 2: success: ")
        assert tree.wait() == 0
        assert tree.log.endswith(b"status: exiting\n")
        assert not trouble(tree)
        assert b"end msg %d\n" % running in tree.log
        assert tree.log.count(b"starting delivery ") == 2
        birth = (tree.home / "queue" / paths.info(MessId(deferred))).stat().st_mtime
        file = recips_file(tree, Channel.LOCAL, deferred)
        assert file.stat().st_mtime in first_dues(birth, 10)
        file = recips_file(tree, Channel.REMOTE, waiting)
        assert file.read_bytes() == b"Tb@y.example\0"
        assert int(file.stat().st_mtime) <= clock.now()
        tree.start()
        tree.find(rb"msg %d to remote b@y.example\n" % waiting)
        tree.find(rb"\nstarting delivery \d+: msg \d+ to local box@here.example\n")
        tree.wait_for(rb"end msg \d+\n", count=2)
        assert tree.stop() == 0
    assert len(list((maildir / "new").iterdir())) == 1
    assert len(peer.contents) == 2
    assert {path.name for path in tree.queue_files()} == {str(deferred)}


@pytest.mark.parametrize("channel", list(Channel))
def test_timeoutterm_ends_the_wait(tree: Tree, channel: Channel) -> None:
    fifo = tree.home / "alias/go"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    tree.alias("wait", "|cat go\n")
    tree.control("timeoutterm", "1\n")
    recip = b"wait@here.example" if channel is Channel.LOCAL else b"a@x.example"
    with Peer(LOCKSTEP, gate="RCPT") as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.queue([recip])
        messid = tree.new_messid()
        tree.wait_for(rb"status: local \d/10 remote \d/20\n")
        if channel is Channel.LOCAL:
            # A reader is there: the program runs.
            fd = os.open(fifo, os.O_WRONLY)
        else:
            peer.wait_at_gate()
        began = clock.mono()
        assert tree.stop() == 0
        assert 0.9 < clock.mono() - began < 20
        file = recips_file(tree, channel, messid)
        assert file.read_bytes() == b"T%b\0" % recip
        assert b"\ndelivery 1: " not in tree.log
        assert not trouble(tree)
        if channel is Channel.LOCAL:
            os.close(fd)
            tree.alias("wait", "|true\n")
        peer.open_gate()
        tree.start()
        tree.wait_for(rb"starting delivery 1: msg %d " % messid)
        tree.wait_for(rb"delivery 1: success: ")
        assert tree.stop() == 0
    assert not tree.queue_files()


def test_int_ends_the_tree_like_term(tree: Tree) -> None:
    tree.start()
    until(lambda: len(tree.pids("qmail-clean")) == 1)
    members = tree.family()
    tree.signal(signal.SIGINT)
    assert tree.wait() == 0
    assert tree.log.endswith(b"status: local 0/10 remote 0/20\nstatus: exiting\n")
    assert not trouble(tree)
    assert not any(each.is_running() for each in members)


def test_second_term_and_signals_during_a_stop_change_nothing(tree: Tree) -> None:
    with Peer(LOCKSTEP, gate="DOT") as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.queue([b"a@x.example"])
        peer.wait_at_gate()
        tree.signal(signal.SIGTERM)
        tree.wait_for(rb" exitasap\n")
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP):
            for target in ("qmail-start", "qmail-send"):
                tell(tree, target, signum)
        peer.open_gate()
        assert tree.wait() == 0
    assert b"delivery 1: success: " in tree.log
    assert not trouble(tree)
    assert not tree.queue_files()


@EITHER
def test_alrm_tries_everything_at_once(tree: Tree, target: str) -> None:
    tree.alias("later", "|exit 111\n")
    with Peer(LOCKSTEP | {"MAIL": b"451 no"}) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.queue([b"later@here.example", b"a@x.example"])
        tree.queue([b"b@y.example"])
        tree.wait_for(rb"\ndelivery \d+: deferral: ", count=3)
        for _ in range(2):
            # Once only: the times after it are those of the schedule.
            until(lambda: _scheduled(tree) == 3)
            tell(tree, target, signal.SIGALRM)
            tree.wait_for(rb"\ndelivery \d+: deferral: ", count=3)
        until(lambda: _scheduled(tree) == 3)
        assert tree.stop() == 0
    assert tree.log.count(b"starting delivery ") == 9
    assert not trouble(tree)


def _scheduled(tree: Tree) -> int:
    channels = tree.ask("status")["channels"].values()
    return sum(channel["scheduled"] for channel in channels)


@EITHER
def test_hup_takes_new_controls(tree: Tree, target: str) -> None:
    tree.start()
    tree.control("concurrencylocal", "7\n")
    tell(tree, target, signal.SIGHUP)
    tree.wait_for(rb"reread controls: generation 2\n")
    tree.wait_for(rb"status: local 0/7 remote 0/20\n")
    assert tree.ask("status")["generation"] == 2
    assert tree.stop() == 0
    assert not trouble(tree)
