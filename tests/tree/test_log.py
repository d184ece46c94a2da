"""The delivery log of a whole tree, byte for byte.

What depends on chance (message numbers, pids) is read from where it comes from.
"""

from __future__ import annotations

import os
import re

import pytest

from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree


def single_file(tree: Tree) -> None:
    """One delivery at a time, so that the order of lines is no chance."""
    tree.control("concurrencylocal", "1\n")
    tree.control("concurrencyremote", "1\n")


def test_life_of_a_message_line_by_line(tree: Tree) -> None:
    maildir = tree.maildir()
    tree.alias("box", "./Maildir/\n")
    single_file(tree)
    tree.start()
    qp = tree.queue([b"box@here.example"], sender=b"")
    tree.wait_for(rb"end msg \d+\n")
    assert tree.stop() == 0
    [path] = (maildir / "new").iterdir()
    head = b"Return-Path: <>\nDelivered-To: box@here.example\n"
    size = path.stat().st_size - len(head)
    found = re.search(rb"new msg (\d+)\n", tree.log)
    assert found
    n = int(found[1])
    # The status line comes once for what happens together.
    assert tree.log in {
        b"status: local 0/1 remote 0/1\n"
        b"new msg %d\n"
        b"info msg %d: bytes %d from <> qp %d uid %d\n"
        b"starting delivery 1: msg %d to local box@here.example\n"
        b"status: local 1/1 remote 0/1\n"
        b"delivery 1: success: did_1+0+0/\n"
        b"%bend msg %d\n%b"
        b"status: exiting\n" % (n, n, size, qp, tree.uid, n, before, n, after)
        for status in (b"status: local 0/1 remote 0/1\n",)
        for before, after in ((status, b""), (b"", status))
    }


def test_message_of_all_kinds_of_ends_line_by_line(tree: Tree) -> None:
    """One message, two channels, all three results, and a bounce."""
    single_file(tree)
    tree.control("doublebounceto", "gone\n")
    tree.alias("later", "|exit 111\n")
    with Peer(LOCKSTEP | {"RCPT": [b"250 r", b"550 no"]}) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        qp = tree.queue(
            [b"later@here.example", b"a@x.example", b"b@x.example", b"c@here.example"],
            sender=b"",
            uid=64_905 if os.getuid() == 0 else None,
        )
        n = tree.new_messid()
        for delid in range(1, 5):
            tree.find(rb"(?m)^delivery %d: .*\n" % delid)
        assert tree.stop() == 0
    lines = [each for each in tree.log.splitlines() if not each.startswith(b"status")]
    uid = 64_905 if os.getuid() == 0 else tree.uid
    assert lines[0] == b"new msg %d" % n
    info = re.fullmatch(
        rb"info msg %d: bytes (\d+) from <> qp %d uid %d" % (n, qp, uid), lines[1]
    )
    assert info
    assert tree.log.count(b"starting delivery ") == 4
    started = dict(
        re.findall(rb"(?m)^starting delivery (\d+): msg %d to (\w+ .*)$" % n, tree.log)
    )
    said = dict(re.findall(rb"(?m)^delivery (\d+): (.*)$", tree.log))
    host = b"127.0.0.1"
    assert {started[delid]: text for delid, text in said.items()} == {
        b"local later@here.example": b"deferral: ",
        b"local c@here.example": (
            b"failure: Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/"
        ),
        b"remote a@x.example": (
            b"success: %b_accepted_message./Remote_host_said:_250_ok/" % host
        ),
        b"remote b@x.example": (
            b"failure: %b_does_not_like_recipient./Remote_host_said:_550_no/"
            b"Giving_up_on_%b./" % (host, host)
        ),
    }
    # Deliveries start in the order of the envelope on each channel, and each is
    # started before it is reported.
    for delid in said:
        assert tree.log.index(b"starting delivery %b:" % delid) < tree.log.index(
            b"\ndelivery %b:" % delid
        )
    assert b"end msg" not in tree.log
    assert b"bounce msg" not in tree.log


def test_status_counts_what_runs(tree: Tree) -> None:
    fifo = tree.home / "alias/go"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    tree.alias("wait", "|cat go\n")
    with Peer(LOCKSTEP, gate="DOT") as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.queue([b"wait@here.example", b"a@x.example"])
        tree.wait_for(rb"status: local 1/10 remote 1/20\n")
        peer.wait_at_gate()
        peer.open_gate()
        tree.wait_for(rb"status: local 1/10 remote 0/20\n")
        fd = os.open(fifo, os.O_WRONLY)
        os.close(fd)
        tree.wait_for(rb"status: local 0/10 remote 0/20\n")
        tree.stop()
    last = b""
    for line in tree.log.splitlines():
        if line.startswith(b"status: "):
            assert line != last
            last = line


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (b"a%b c\xe9@here.example", b"a_b_c_@here.example"),
        (b"two\nlines@here.example", b"two/lines@here.example"),
        (b"tab\tnul~@here.example", b"tab_nul~@here.example"),
        (b"\x7fdel\x80@here.example", b"_del_@here.example"),
    ],
)
def test_addresses_are_shown_without_what_harms(
    tree: Tree, address: bytes, shown: bytes
) -> None:
    tree.alias("default", "|printf '%s' \"$LOCAL\"; printf ' 100%% \\351\\n\\n\\001'\n")
    tree.start()
    tree.queue([address], sender=address)
    tree.wait_for(rb"info msg \d+: bytes \d+ from <%b> qp " % re.escape(shown))
    tree.wait_for(rb"msg \d+ to local %b\n" % re.escape(shown))
    local = shown.removesuffix(b"@here.example")
    tree.wait_for(
        rb"delivery 1: success: %b_100___//_did_0\+0\+1/\n" % re.escape(local)
    )
    tree.stop()
    # Nothing but printable lines, whatever came.
    assert not re.search(rb"[^ -~\n]", tree.log)


def test_message_without_recipients_ends_at_once(tree: Tree) -> None:
    tree.start()
    qp = tree.queue([])
    n = tree.new_messid()
    tree.wait_for(
        rb"info msg %d: bytes \d+ from <me@elsewhere.example> qp %d uid %d\n"
        rb"end msg %d\n" % (n, qp, tree.uid, n)
    )
    assert tree.stop() == 0
    assert not tree.queue_files()
    assert b"delivery" not in tree.log
