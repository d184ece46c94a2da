"""One queue worked by notqmail's programs, by ours, and by both together."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

import pytest

from tests.interop import notqmail
from tests.interop.whole import (
    RECIPS,
    SPAWNERS,
    check_first_attempts,
    check_the_end,
    files,
    keep_their_queue_program,
    output_of_theirs,
    queue_by_theirs,
    start_ours,
    start_theirs,
)
from tests.smtppeer import Script
from tests.tree.classicqueue import INJECTOR, LOCAL, REMOTE
from tests.tree.harness import Tree, until
from tests.tree.outcomes import contents, hosts, retry, trouble

pytestmark = notqmail.marks

BODY = b"Subject: test\n\nbody\n"
REFUSING: Script = {"RCPT": b"550 unknown"}
BUSY: Script = {"MAIL": [b"451 busy", b"250 ok"]}


def go_on(tree: Tree) -> None:
    """What was deferred succeeds at the next attempt, which is now."""
    (tree.home / "alias/now").touch()
    tree.signal(signal.SIGALRM)
    tree.wait_for(rb"end msg \d+\n", count=2)


# Their clients, our tree


def test_their_qmail_queue_injects_into_ours(home: Tree) -> None:
    start_ours(home)
    qp = queue_by_theirs(home, [b"ok@here.example"], uid=INJECTOR)
    info = home.wait_for(
        rb"info msg (\d+): bytes (\d+) from <me@elsewhere.example> (.*)"
    )
    assert info[3] == b"qp %d uid %d" % (qp, INJECTOR)
    home.wait_for(rb"end msg \d+\n")
    [message] = contents(home, "Maildir")
    head, _, rest = message.partition(b"Received: ")
    assert (
        head == b"Return-Path: <me@elsewhere.example>\nDelivered-To: ok@here.example\n"
    )
    assert rest.startswith(b"(qmail %d invoked by uid %d); " % (qp, INJECTOR))
    assert int(info[2]) == len(message) - len(head)
    assert home.stop() == 0
    # And what comes while nothing runs is there at the next start.
    for _ in range(3):
        queue_by_theirs(home, [b"ok@here.example"], uid=INJECTOR)
    start_ours(home)
    home.wait_for(rb"end msg \d+\n", count=3)
    assert len(contents(home, "Maildir")) == 4
    assert home.stop() == 0
    assert files(home) == []
    assert trouble(home) == []


def test_their_lists_of_our_queue_are_ours(home: Tree) -> None:
    with hosts(home, good={}, bad=REFUSING, busy=BUSY):
        start_ours(home)
        home.queue(RECIPS, BODY, b"a b@here.example")
        home.reports(*RECIPS)
        until(lambda: (home.home / "queue/bounce").exists())
        assert home.stop() == 0
    queue_by_theirs(home, [b"ok@here.example"])
    ours = home.program("qmail-qread")
    assert ours.returncode == 0
    listed = output_of_theirs(home, "qmail-qread")
    assert listed == ours.stdout
    assert b"  <a b@here.example>  bouncing\n" in listed
    assert b"\n  done\tlocal\tok@here.example\n" in listed
    assert b"\n\tlocal\tlater@here.example\n" in listed
    assert b"\n\tremote\ta@busy.example\n" in listed
    stat = output_of_theirs(home, "qmail-qstat")
    assert stat == home.program("qmail-qstat").stdout
    assert stat == (
        b"messages in queue: 2\nmessages in queue but not yet preprocessed: 1\n"
    )


# Mixtures


@pytest.mark.parametrize("theirs", [[each] for each in SPAWNERS] + [SPAWNERS])
def test_our_send_drives_their_programs(home: Tree, theirs: Sequence[str]) -> None:
    with hosts(home, good={}, bad=REFUSING, busy=BUSY) as peers:
        start_ours(home, theirs=theirs)
        home.queue(RECIPS, BODY, b"me-@here.example-@[]")
        check_first_attempts(home)
        retry_all(home)
    assert b"MAIL FROM:<me-a=good.example@here.example>" in peers["good"].commands
    check_the_end(home)


def retry_all(tree: Tree) -> None:
    (tree.home / "alias/now").touch()
    retry(tree, LOCAL, REMOTE)
    tree.wait_for(rb"end msg \d+\n", count=2)


@pytest.mark.parametrize(
    "ours", [[], *([each] for each in SPAWNERS), SPAWNERS, ["qmail-send"]]
)
def test_their_start_runs_ours_in_their_places(home: Tree, ours: Sequence[str]) -> None:
    """Their qmail-send drives our spawners; our qmail-send drives theirs."""
    keep_their_queue_program(home)
    with hosts(home, good={}, bad=REFUSING, busy=BUSY) as peers:
        start_theirs(home, ours=ours)
        queue_by_theirs(home, RECIPS, BODY, b"me-@here.example-@[]", uid=INJECTOR)
        check_first_attempts(home)
        home.wait_for(rb"(?m)^delivery \d+: deferral: .*\n", count=2)
        if "qmail-send" in ours:
            retry_all(home)
        else:
            go_on(home)
        queue_by_theirs(home, [b"fwd@here.example"], BODY, b"")
        home.wait_for(rb"(?m)^delivery \d+: success: did_0\+2\+0/qp_\d+/\n")
        home.wait_for(rb"end msg \d+\n", count=2)
        assert len(peers["good"].contents) == 2
        [message] = [
            each
            for each in contents(home, "Maildir")
            if each.count(b"Delivered-To") > 1
        ]
    assert b"Delivered-To: ok@here.example\n" in message
    assert b"\nDelivered-To: fwd@here.example\n" in message
    name = re.search(rb"(?m)^Received: .*\n", message)
    assert name
    [path] = [
        each
        for each in (home.home / "alias/Maildir/new").iterdir()
        if each.read_bytes() == message
    ]
    path.unlink()
    check_the_end(home)
