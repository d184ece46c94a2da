"""qmail-send between classic spawners and a classic cleaner, over six pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from qsend.sysio.runlock import lock_queue
from tests.smtppeer import PIPELINED, Peer
from tests.tree.harness import ROOT, Tree, until


def start(
    tree: Tree, default: str = "./Mailbox", env: dict[str, str] | None = None
) -> None:
    """As Tree.start, by what stands for qmail's qmail-start."""
    tree.kill(strays=False)
    mode = "root" if tree.uid == 0 else "user"
    tree.process = subprocess.Popen(
        [
            sys.executable, str(ROOT / "tests/classicstart.py"),
            str(tree.home), mode, default,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        start_new_session=True,
        env={"PATH": os.environ["PATH"], **(env or {})},
        user=tree.uid,
        group=tree.uid,
        extra_groups=[],
    )  # fmt: skip


def settle(tree: Tree) -> None:
    tree.wait_for(rb"(?m)^status: local 0/\d+ remote 0/\d+\n")


def children(tree: Tree) -> dict[str, psutil.Process]:
    """Program to process, of the three that serve send."""
    found = {}
    for each in tree.family()[1:]:
        for word in each.cmdline():
            if os.path.basename(word) in (
                "qmail-lspawn",
                "qmail-rspawn",
                "qmail-clean",
            ):
                found[os.path.basename(word)] = each
    return found


@pytest.mark.root
def test_all_is_delivered_with_the_accounts_of_qmail(tree: Tree) -> None:
    box = tree.maildir("Box")
    with Peer(PIPELINED) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        start(tree, "./Box/")
        settle(tree)
        uids = {name: each.uids().real for name, each in children(tree).items()}
        assert uids["qmail-lspawn"] == 0
        assert len(set(uids.values())) == 3
        tree.queue([b"postmaster@here.example", b"ann@far.example"])
        tree.wait_for(b"end msg")
    assert len(list((box / "new").iterdir())) == 1
    assert b"RCPT TO:<ann@far.example>" in peer.commands
    until(lambda: tree.queue_files() == [])
    family = tree.family()
    assert tree.stop() == 0
    assert tree.log.endswith(b"status: exiting\n")
    psutil.wait_procs(family, 10)
    assert not any(each.is_running() for each in family)


BODY = b"Subject: big\n\n" + b"".join(b"line %d\n" % n for n in range(20000))


def test_bounce_is_queued_by_our_qmail_queue_and_delivered(user_tree: Tree) -> None:
    box = user_tree.maildir("Box")
    user_tree.alias("gone", "|exit 100\n")
    start(user_tree, "./Box/")
    settle(user_tree)
    user_tree.queue([b"gone@here.example"], BODY, b"postmaster@here.example")
    # The program's pid is what the log shows, and what the new message came by.
    qp = user_tree.wait_for(rb"bounce msg \d+ qp (\d+)\n")[1]
    user_tree.find(rb"info msg \d+: bytes \d+ from <> qp %b uid " % qp)
    until(lambda: any((box / "new").iterdir()))
    [bounce] = (box / "new").iterdir()
    assert b"<gone@here.example>:\n" in bounce.read_bytes()
    assert bounce.read_bytes().endswith(b"line 19999\n")
    assert user_tree.stop() == 0


def program(tree: Tree, text: str) -> dict[str, str]:
    """An environment whose QMAILQUEUE is this shell script, below the home."""
    path = tree.home / "run/queue-program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return {"QMAILQUEUE": "run/queue-program"}


@pytest.mark.parametrize(
    "text",
    [
        "exit 53",
        "kill -9 $$",
        "exec head -c 10 >/dev/null",
        "exit 0",
        "exec cat >/dev/null",
    ],
)
def test_bounce_that_is_not_taken_whole_waits(user_tree: Tree, text: str) -> None:
    user_tree.alias("gone", "|exit 100\n")
    start(user_tree, env=program(user_tree, text))
    settle(user_tree)
    user_tree.queue([b"gone@here.example"], BODY, b"postmaster@here.example")
    said = rb"warning: trouble injecting bounce message, will try later\n"
    user_tree.wait_for(said)
    assert b"bounce msg" not in user_tree.log
    assert len(list((user_tree.home / "queue/bounce").iterdir())) == 1
    assert user_tree.stop() == 0


def test_queue_program_gets_message_and_envelope(user_tree: Tree) -> None:
    user_tree.alias("gone", "|exit 100\n")
    script = (
        'cat > "$PWD/run/message"; cat <&1 > "$PWD/run/envelope"\n'
        "for n in 2 3 4 5 6 7 8; do\n"
        '    [ -e /proc/$$/fd/$n ] && echo "open: $n" >&2; done; :'
    )
    start(user_tree, env=program(user_tree, script))
    settle(user_tree)
    user_tree.queue([b"gone@here.example"], BODY, b"me@elsewhere.example")
    user_tree.wait_for(rb"open: 2\nbounce msg \d+ qp \d+\n")
    assert (user_tree.home / "run/envelope").read_bytes() == (
        b"F\0Tme@elsewhere.example\0\0"
    )
    message = (user_tree.home / "run/message").read_bytes()
    assert message.endswith(BODY)
    assert b"<gone@here.example>:\n" in message
    assert user_tree.stop() == 0


def test_missing_queue_program_is_tried_again_later(user_tree: Tree) -> None:
    user_tree.alias("gone", "|exit 100\n")
    start(user_tree, env={"QMAILQUEUE": "run/none"})
    settle(user_tree)
    user_tree.queue([b"gone@here.example"], sender=b"me@elsewhere.example")
    user_tree.wait_for(b"warning: unable to start qmail-queue, will try later\n")
    assert user_tree.stop() == 0


@pytest.mark.parametrize("lost", ["qmail-lspawn", "qmail-rspawn"])
def test_lost_spawner_ends_it_with_111(user_tree: Tree, lost: str) -> None:
    start(user_tree)
    settle(user_tree)
    children(user_tree)[lost].kill()
    user_tree.wait_for(b"alert: oh no! lost spawn connection! dying...\n")
    assert user_tree.wait() == 111
    assert user_tree.log.endswith(b"status: exiting\n")


def test_lost_cleaner_ends_it_with_111(user_tree: Tree) -> None:
    start(user_tree)
    settle(user_tree)
    children(user_tree)["qmail-clean"].kill()
    user_tree.wait_for(b"alert: oh no! lost qmail-clean connection! dying...\n")
    assert user_tree.wait() == 111


def test_hup_and_alrm(user_tree: Tree) -> None:
    box = user_tree.maildir("Box")
    user_tree.alias("ann", "|exit 111\n")
    start(user_tree, "./Box/")
    settle(user_tree)
    user_tree.queue([b"ann@here.example"])
    user_tree.wait_for(b"deferral: ")
    user_tree.control("virtualdomains", "v.example:list\n")
    user_tree.signal(signal.SIGHUP)
    user_tree.wait_for(b"reread controls: generation 2\n")
    user_tree.control("virtualdomains", "no colon\n")
    user_tree.signal(signal.SIGHUP)
    user_tree.wait_for(b"alert: unable to reread controls: control/virtualdomains:1: ")
    user_tree.alias("ann", "./Box/\n")
    user_tree.alias("list-x", "./Box/\n")
    user_tree.queue([b"x@v.example"])
    assert user_tree.reports(b"list-x@v.example")[0].startswith(b"success")
    user_tree.signal(signal.SIGALRM)
    user_tree.wait_for(b"success: ")
    until(lambda: len(list((box / "new").iterdir())) == 2)
    assert user_tree.stop() == 0


def test_running_deliveries_are_waited_for_at_the_end(user_tree: Tree) -> None:
    fifo = user_tree.home / "run/fifo"
    os.mkfifo(fifo)
    os.chown(fifo, user_tree.uid, -1)
    user_tree.control("timeoutterm", "0\n")
    user_tree.alias("slow", f"|cat {fifo}\n")
    start(user_tree)
    settle(user_tree)
    user_tree.queue([b"slow@here.example"])
    user_tree.wait_for(b"starting delivery 1: ")
    user_tree.signal(signal.SIGTERM)
    user_tree.wait_for(b"status: local 1/10 remote 0/20 exitasap\n")
    fifo.write_bytes(b"done\n")
    user_tree.wait_for(b"delivery 1: success: done/did_0\\+0\\+1/\n")
    assert user_tree.wait() == 0
    until(lambda: user_tree.queue_files() == [])


def test_what_keeps_it_from_starting_is_said_and_is_111(user_tree: Tree) -> None:
    lock = lock_queue(str(user_tree.home / "queue"))
    start(user_tree)
    assert user_tree.wait() == 111
    os.close(lock)
    assert b"alert: cannot start: qmail-send is already running\n" in user_tree.log
    for name in ("me", "locals"):
        user_tree.control(name, None)
    start(user_tree)
    assert user_tree.wait() == 111
    assert b"alert: cannot start: unable to read controls: control/me" in user_tree.log
    user_tree.control("locals", "here.example\n")
    start(user_tree)
    settle(user_tree)
    assert user_tree.stop() == 0


def test_run_by_hand_it_says_who_runs_it(user_tree: Tree) -> None:
    done = user_tree.program("qmail-send")
    assert done.returncode == 111
    assert done.stderr == b"qmail-send: fatal: expected to be run by qmail-start\n"
