"""Bounces by a whole tree: when they are made, what they say, where they end."""

from __future__ import annotations

import mailbox
import os
import re
import signal
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from qsend.core.model import Channel, MessId
from qsend.formats import paths
from qsend.sysio import clock
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree, first_dues, until

MESSAGE = b"Subject: lost\n\nbody without end"
DATE = rb"\d\d? [A-Z][a-z][a-z] 20\d\d \d\d:\d\d:\d\d -0000"
NO_MAILBOX = b"Sorry, no mailbox here by that name. (#5.1.1)\n"
SINGLE = (
    b"Hi. This is the qmail-send program at here.example.\n"
    b"Your message could not be delivered to the addresses below.\n"
    b"This is final: no further attempt will be made.\n\n"
)
DOUBLE = (
    b"Hi. This is the qmail-send program at here.example.\n"
    b"A bounce could not be delivered to the address below.\n\n"
)
COPY = b"--- Below this line is a copy of the message.\n\n"
ORIGINAL = b"--- Below this line is the original bounce.\n\n"


def catch(tree: Tree, *locals_: str) -> Path:
    """A maildir that gets the mail of these aliases; one at a time, in order."""
    maildir = tree.maildir()
    for local in locals_:
        tree.alias(local, "./Maildir/\n")
    return maildir


def only(maildir: Path) -> bytes:
    [path] = (maildir / "new").iterdir()
    return path.read_bytes()


def take_head(content: bytes, *, to: bytes, who: bytes = b"MAILER-DAEMON") -> bytes:
    """Check the lines above a bounce's text; what follows them."""
    head = re.match(
        rb"Return-Path: <([^\n]*)>\nDelivered-To: [^\n]*\n"
        rb"Received: \(qmail \d+ invoked for bounce\); " + DATE + rb"\n"
        rb"Date: (" + DATE + rb")\n"
        rb"From: " + who + rb"@here\.example\n"
        rb"To: " + re.escape(to) + rb"\n"
        rb"Subject: failure notice\n\n",
        content,
    )
    assert head, content
    made = parsedate_to_datetime(head[2].decode())
    assert abs(made.timestamp() - clock.now()) < 60
    return content[head.end() :]


def take_received(content: bytes) -> bytes:
    """Check for the line that queueing added; what follows it."""
    line = re.match(rb"Received: \(qmail \d+ [^\n]*\); " + DATE + rb"\n", content)
    assert line, content
    return content[line.end() :]


def test_single_bounce_is_exactly_this(tree: Tree) -> None:
    maildir = catch(tree, "me")
    tree.alias("refuses", "|printf 'one\\n\\ntwo %%\\351\\n\\n'; exit 100\n")
    with Peer(LOCKSTEP | {"RCPT": b"550-no\r\n550 really"}) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.control("virtualdomains", "v.example:alias-v\nuser@w.example:alias-w\n")
        tree.start()
        tree.queue(
            [
                b"refuses@here.example",
                b"nobody\nat@here.example",
                b"x@v.example",
                b"user@w.example",
                b"r@x.example",
            ],
            MESSAGE,
            b"me@here.example",
        )
        messid = tree.new_messid()
        tree.wait_for(rb"bounce msg %d qp \d+\n" % messid)
        tree.wait_for(rb"end msg %d\n" % messid)
        tree.wait_for(rb"delivery 6: success: did_1\+0\+0/\n")
        assert tree.stop() == 0
    assert not tree.queue_files()
    content = only(maildir)
    assert content.startswith(b"Return-Path: <>\nDelivered-To: me@here.example\n")
    text = take_head(content, to=b"me@here.example")
    assert text.startswith(SINGLE)
    report, mark, returned = text.removeprefix(SINGLE).partition(COPY)
    assert mark
    # Recipients come as their deliveries ended.
    paragraphs = sorted(re.split(rb"(?<=\n\n)(?=<)", report))
    host = b"127.0.0.1"
    assert paragraphs == [
        # The prefix of a whole virtual domain goes, that of one address stays.
        b"<alias-w-user@w.example>:\n" + NO_MAILBOX + b"\n",
        b"<nobody_at@here.example>:\n" + NO_MAILBOX + b"\n",
        b"<r@x.example>:\n" + host + b" does not like recipient.\n"
        b"Remote host said: 550-no\n550 really\nGiving up on " + host + b".\n\n",
        b"<refuses@here.example>:\none\n/two %\351\n\n\n",
        b"<x@v.example>:\n" + NO_MAILBOX + b"\n",
    ]
    first, _, rest = returned.partition(b"\n")
    assert first == b"Return-Path: <me@here.example>"
    assert take_received(rest) == MESSAGE


def test_bounce_of_a_bounce_goes_to_the_postmaster(tree: Tree) -> None:
    maildir = catch(tree, "postmaster")
    tree.start()
    tree.queue([b"nobody@here.example"], MESSAGE, b"no-sender@here.example")
    for sender in (b"", b"#@[]"):
        tree.wait_for(rb"info msg \d+: bytes \d+ from <" + re.escape(sender) + b"> ")
    tree.wait_for(rb"delivery 3: success: did_1\+0\+0/\n")
    assert tree.stop() == 0
    assert not tree.queue_files()
    content = only(maildir)
    assert content.startswith(b"Return-Path: <#@[]>\n")
    text = take_head(content, to=b"postmaster@here.example")
    assert text.startswith(DOUBLE + b"<no-sender@here.example>:\n" + NO_MAILBOX)
    report, _mark, returned = text.partition(ORIGINAL)
    assert report == DOUBLE + b"<no-sender@here.example>:\n" + NO_MAILBOX + b"\n"
    first, _, rest = returned.partition(b"\n")
    assert first == b"Return-Path: <>"
    inner = take_received(rest)
    assert b"To: no-sender@here.example\nSubject: failure notice\n\n" + SINGLE in inner
    assert inner.endswith(MESSAGE)


def test_third_bounce_is_dropped(tree: Tree) -> None:
    tree.control("doublebounceto", "nobody\n")
    tree.start()
    tree.queue([b"nobody@here.example"], MESSAGE, b"no-sender@here.example")
    numbers = [tree.new_messid() for _ in range(3)]
    tree.wait_for(rb"triple bounce: discarding bounce/%d\n" % numbers[2])
    tree.wait_for(rb"end msg %d\n" % numbers[2])
    assert tree.stop() == 0
    assert not tree.queue_files()
    assert tree.log.count(b"bounce msg ") == 2


def test_control_files_name_who_bounces_and_who_hears_of_it(tree: Tree) -> None:
    maildir = catch(tree, "us", "hear")
    tree.control("bouncefrom", "odd name\n")
    tree.control("bouncehost", "here.example\n")
    tree.control("doublebounceto", "hear\n")
    tree.control("doublebouncehost", "other.example\n")
    tree.control("locals", "here.example\nother.example\n")
    tree.start()
    tree.queue([b"nobody@here.example"], MESSAGE, b"")
    tree.wait_for(rb"delivery 2: success: did_1\+0\+0/\n")
    [message] = mailbox.Maildir(maildir)
    assert message["To"] == "hear@other.example"
    assert message["From"] == '"odd name"@here.example'
    take_head(only(maildir), to=b"hear@other.example", who=b'"odd name"')


def test_bounces_to_a_verp_sender_lose_its_mark(tree: Tree) -> None:
    maildir = catch(tree, "list-owner-")
    tree.start()
    tree.queue([b"nobody@here.example"], MESSAGE, b"list-owner-@here.example-@[]")
    tree.wait_for(rb"delivery 2: success: did_1\+0\+0/\n")
    text = take_head(only(maildir), to=b"list-owner-@here.example")
    assert b"\nReturn-Path: <list-owner-@here.example>\n" in text
    assert b" to local list-owner-@here.example\n" in tree.log


def test_bounce_waits_for_the_last_recipient_of_both_channels(tree: Tree) -> None:
    maildir = catch(tree, "me")
    with Peer(LOCKSTEP | {"DOT": b"554 no"}, gate="DOT") as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.queue([b"nobody@here.example", b"r@x.example"], sender=b"me@here.example")
        messid = MessId(tree.new_messid())
        peer.wait_at_gate()
        tree.wait_for(rb"delivery \d+: failure: .*5\.1\.1")
        # A later message is through while this one waits.
        tree.queue([b"me@here.example"])
        tree.wait_for(rb"delivery \d+: success: did_1\+0\+0/\n")
        assert b"bounce msg " not in tree.log
        queue = tree.home / "queue"
        until(lambda: not (queue / paths.recips(Channel.LOCAL, messid)).exists())
        assert (queue / paths.recips(Channel.REMOTE, messid)).exists()
        noted = (queue / paths.bounce(messid)).read_bytes()
        assert noted == b"<nobody@here.example>:\n" + NO_MAILBOX + b"\n"
        peer.open_gate()
        tree.wait_for(rb"bounce msg %d qp \d+\n" % messid)
        tree.wait_for(rb"end msg %d\n" % messid)
        tree.wait_for(rb"delivery \d+: success: did_1\+0\+0/\n")
        tree.stop()
    assert len(list((maildir / "new").iterdir())) == 2


@pytest.mark.parametrize("channel", list(Channel))
def test_expired_message_gets_one_more_attempt_and_bounces(
    tree: Tree, channel: Channel
) -> None:
    maildir = catch(tree, "me")
    tree.alias("later", "|echo not now; exit 111\n")
    recip = b"later@here.example" if channel is Channel.LOCAL else b"r@x.example"
    with Peer(LOCKSTEP | {"RCPT": b"450 not now"}) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.queue([recip], MESSAGE, sender=b"me@here.example")
        messid = MessId(tree.new_messid())
        tree.wait_for(rb"delivery 1: deferral: .*not_now")
        info = tree.home / "queue" / paths.info(messid)
        file = tree.home / "queue" / paths.recips(channel, messid)
        skip = {Channel.LOCAL: 10, Channel.REMOTE: 20}[channel]
        until(lambda: file.exists() and file.stat().st_mtime % 1 == 0)
        birth = int(info.stat().st_mtime)
        assert file.stat().st_mtime in first_dues(birth, skip)
        old = birth - 604_801
        os.utime(info, (old, old))
        tree.signal(signal.SIGALRM)
        tree.wait_for(
            rb"delivery 2: failure: .*not_now/.*"
            rb"I'm_not_going_to_try_again;_this_message_has_been_in_the_queue_too_long."
            rb"/\n"
        )
        tree.wait_for(rb"bounce msg %d qp \d+\n" % messid)
        tree.wait_for(rb"delivery 3: success: did_1\+0\+0/\n")
        tree.stop()
    content = only(maildir)
    assert b"not now\n" in content
    assert (
        b"\nI'm not going to try again; this message has been in the queue too long."
        b"\n\n" in content
    )
    assert not tree.queue_files()
