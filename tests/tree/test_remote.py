"""Remote delivery by a whole tree, through smtproutes, to scripted peers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from qsend.core.model import Channel, MessId
from qsend.formats import paths
from tests.smtppeer import LOCKSTEP, PIPELINED, Peer
from tests.tree.harness import Tree, first_dues, until


def route(tree: Tree, peer: Peer) -> None:
    """Send all remote mail to the peer, one connection at a time."""
    tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
    tree.control("concurrencyremote", "1\n")


def remote_file(tree: Tree, messid: int) -> Path:
    name = paths.recips(Channel.REMOTE, MessId(messid))
    return tree.home / "queue" / name


def info_file(tree: Tree, messid: int) -> Path:
    return tree.home / "queue" / paths.info(MessId(messid))


@pytest.mark.parametrize("script", [LOCKSTEP, PIPELINED], ids=["lockstep", "piped"])
def test_recipients_of_a_destination_share_a_transaction(
    tree: Tree, script: dict[str, bytes]
) -> None:
    recips = [b"a@x.example", b"odd one@y.example", b"c@x.example"]
    message = b"Subject: dots\n\n.\n..two\nend"
    with Peer(script | {"RCPT": [b"250 r", b"550 not here", b"250 r"]}) as peer:
        route(tree, peer)
        tree.start()
        tree.queue(recips, message, sender=b"me@elsewhere.example")
        first, odd, third = tree.reports(recips[0], b"odd_one@y.example", recips[2])
        tree.stop()
    host = b"127.0.0.1"
    took = b"success: %b_accepted_message./Remote_host_said:_250_ok/" % host
    assert first == third == took
    assert odd == (
        b"failure: %b_does_not_like_recipient./Remote_host_said:_550_not_here/"
        b"Giving_up_on_%b./" % (host, host)
    )
    [served] = [each for each in peer.served if each.contents]
    words = [each.split(b" SIZE")[0] for each in served.commands]
    assert words[:6] == [
        b"EHLO here.example",
        b"MAIL FROM:<me@elsewhere.example>",
        b"RCPT TO:<a@x.example>",
        b'RCPT TO:<"odd one"@y.example>',
        b"RCPT TO:<c@x.example>",
        b"DATA",
    ]
    content = served.contents[0]
    assert content.startswith(b"Received: (qmail ")
    assert content.endswith(b"Subject: dots\r\n\r\n..\r\n...two\r\nend\r\n.\r\n")


def test_a_session_is_used_for_several_messages(tree: Tree) -> None:
    with Peer(LOCKSTEP) as peer:
        route(tree, peer)
        tree.start()
        tree.run("hold", "remote")
        for at in range(3):
            tree.queue([b"r%d@x.example" % at], b"Subject: %d\n\n" % at)
        tree.run("release", "remote")
        tree.wait_for(rb"end msg \d+\n", count=3)
        tree.stop()
        [served] = peer.served
        until(lambda: served.commands[-1] == b"QUIT")
    assert len(served.contents) == 3
    assert served.commands.count(b"EHLO here.example") == 1
    assert sum(each.startswith(b"MAIL") for each in served.commands) == 3


def test_deferral_waits_400_seconds_and_an_alarm_tries_at_once(tree: Tree) -> None:
    with Peer(LOCKSTEP | {"RCPT": [b"450 busy", b"250 r"]}) as peer:
        route(tree, peer)
        tree.start()
        tree.queue([b"a@x.example"])
        messid = tree.new_messid()
        tree.wait_for(rb"delivery 1: deferral: .*450_busy/Giving_up_on_127.0.0.1./\n")
        file = remote_file(tree, messid)
        # The time is the last that is written, in whole seconds.
        until(lambda: file.exists() and file.stat().st_mtime % 1 == 0)
        [item] = tree.ask("queue")
        birth = int(info_file(tree, messid).stat().st_mtime)
        due = int(file.stat().st_mtime)
        assert due in first_dues(birth, 20)
        assert file.read_bytes() == b"Ta@x.example\0"
        assert item["recips"][0]["next"] == due
        assert "450 busy" in item["last"]
        # A restart keeps the time, and nothing is tried before.
        assert tree.stop() == 0
        assert file.stat().st_mtime == due
        tree.start()
        assert [each["messid"] for each in tree.ask("queue")] == [messid]
        assert tree.ask("status")["channels"]["remote"]["scheduled"] == 1
        assert len(peer.served) == 1
        tree.signal(signal.SIGALRM)
        tree.wait_for(rb"starting delivery 1: msg %d to remote a@x.example" % messid)
        tree.wait_for(rb"delivery 1: success: ")
        tree.wait_for(rb"end msg %d\n" % messid)
        assert tree.stop() == 0
    assert not tree.queue_files()


def test_due_message_is_tried_when_its_time_has_come(tree: Tree) -> None:
    """The time is the file's: an operator may set it, and a start reads it."""
    with Peer(LOCKSTEP | {"MAIL": [b"451 later", b"451 again", b"250 s"]}) as peer:
        route(tree, peer)
        tree.start()
        tree.queue([b"a@x.example"])
        messid = tree.new_messid()
        tree.wait_for(rb"delivery 1: deferral: .*451_later/\n")
        tree.stop()
        info, file = info_file(tree, messid), remote_file(tree, messid)
        old = int(info.stat().st_mtime) - 10_000
        os.utime(info, (old, old))
        os.utime(file, (old, old))
        tree.start()
        tree.wait_for(rb"delivery 1: deferral: .*451_again/\n")
        tree.stop()
        # 10,000 to 10,200 s after its birth: the root is 100, the next 120 squared.
        assert file.stat().st_mtime == old + 14400


def test_rewriting_decides_where_mail_goes(tree: Tree) -> None:
    tree.control("locals", "# ours\nhere.example\nOther.Example\n")
    tree.control("envnoathost", "there.example\n")
    tree.control("percenthack", "hack.example\nhere.example\n")
    tree.control(
        "virtualdomains",
        "v.example:first\nboss@v.example:alias-x\nv.example:joe-v\n.v.example:sub\n"
        "out.v.example:\nuser@gone.example:\nhere.example:never\n.tld:wild\n",
    )
    table = {
        b"bare": b"remote bare@there.example",
        b"a@here.example": b"local a@here.example",
        b"a@HERE.Example": b"local a@HERE.Example",
        b"a@other.example": b"local a@other.example",
        b"a@v.example": b"local joe-v-a@v.example",
        b"boss@V.example": b"local alias-x-boss@V.example",
        b"a@deep.sub.v.example": b"local sub-a@deep.sub.v.example",
        b"a@out.v.example": b"remote a@out.v.example",
        b"user@gone.example": b"remote user@gone.example",
        b"other@gone.example": b"remote other@gone.example",
        b"a@x.tld": b"local wild-a@x.tld",
        b"a%b@here.example": b"remote a@b",
        b"a%b.tld%here.example@hack.example": b"local wild-a@b.tld",
        b"a%b@x.example": b"remote a_b@x.example",
        b"x@y@here.example": b"local x@y@here.example",
        b"a@": b"remote a@",
    }
    tree.control("concurrencylocal", "50\n")
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.queue(list(table), sender=b"#@[]")
        started = [
            tree.wait_for(rb"starting delivery \d+: msg \d+ to (.*)\n")[1]
            for _ in table
        ]
        assert sorted(started) == sorted(table.values())
        tree.stop()


def test_empty_virtualdomains_key_takes_all_but_exceptions(tree: Tree) -> None:
    tree.control("virtualdomains", ":alias-rest\nout.example:\n.net:\n")
    tree.alias("rest-default", "|echo to $DEFAULT from $EXT\n")
    tree.control("smtproutes", ":127.0.0.1:1\n")
    tree.start()
    tree.queue([b"a@z.org", b"b@out.example", b"c@d.net", b"e@here.example"])
    stored = b"alias-rest-a@z.org"
    assert tree.reports(stored) == [b"success: to_a_from_rest-a/did_0+0+1/"]
    tree.reports(b"b@out.example", b"c@d.net")
    assert b" to remote b@out.example\n" in tree.log
    assert b" to remote c@d.net\n" in tree.log
    assert b" to local e@here.example\n" in tree.log


def test_a_dead_destination_keeps_nobody_waiting(tree: Tree) -> None:
    with Peer(LOCKSTEP) as peer, Peer(LOCKSTEP) as closed:
        tree.control(
            "smtproutes",
            f"dead.example:127.0.0.1:{closed.port}\nlive.example:127.0.0.1:{peer.port}\n",
        )
        closed.__exit__()
        tree.start()
        tree.queue([b"a@dead.example", b"a@live.example", b"b@dead.example"])
        live, one, two = tree.reports(
            b"a@live.example", b"a@dead.example", b"b@dead.example"
        )
        assert live.startswith(b"success: ")
        for report in (one, two):
            assert report.startswith(b"deferral: ")
            assert report.endswith(b"(#4.4.1)/")
        [ill] = tree.ask("status")["ill"]
        assert ill["destination"] == f"127.0.0.1:{closed.port}"
        tree.stop()
