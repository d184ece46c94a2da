"""The operator's commands on a running tree: facts, flush, hold, release, remove."""

from __future__ import annotations

import json
import re

import pytest

from qsend.core.model import MessId
from qsend.formats import paths
from qsend.sysio import clock
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree, first_dues, until

STARTED = rb"starting delivery \d+: msg %d to "


def scheduled(tree: Tree) -> int:
    channels = tree.ask("status")["channels"].values()
    return sum(channel["scheduled"] for channel in channels)


def defer(tree: Tree, *recips: bytes) -> list[int]:
    """Queue a message for each recipient, and wait until each was deferred."""
    numbers = []
    for recip in recips:
        tree.queue([recip])
        numbers.append(tree.new_messid())
        tree.wait_for(rb"\ndelivery \d+: deferral: .*\n")
    until(lambda: scheduled(tree) == len(recips))
    return numbers


def test_status_tells_what_runs(tree: Tree) -> None:
    tree.alias("later", "|exit 111\n")
    with Peer(LOCKSTEP, gate="DOT") as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        defer(tree, b"later@here.example")
        tree.queue([b"a@x.example"])
        peer.wait_at_gate()
        tree.run("hold", "host:Some.Example")
        facts = tree.ask("status")
        local, remote = facts["channels"]["local"], facts["channels"]["remote"]
        assert (local["running"], local["limit"], local["scheduled"]) == (0, 10, 1)
        assert (remote["running"], remote["limit"], remote["scheduled"]) == (1, 20, 0)
        assert facts["generation"] == 1
        assert facts["exiting"] is False
        assert facts["held"] == ["host:some.example"]
        assert facts["unprocessed"] == 1
        assert facts["ill"] == []
        assert [facts["pid"]] == tree.pids("qmail-send")
        names = [each["name"] for each in facts["processes"]]
        assert names[0] == "qmail-start"
        assert {"qmail-send", "qmail-lspawn", "qmail-clean", "qmail-remote"} < set(
            names
        )
        lines = tree.run("status").stdout.decode().splitlines()
        assert lines[0] == "running; controls of generation 1"
        assert re.fullmatch(r"remote +1 +20 +0 +0", lines[4])
        assert "held: host:some.example" in lines
        peer.open_gate()
        tree.stop()


def test_queue_lists_messages_with_their_times_and_reports(tree: Tree) -> None:
    with Peer(LOCKSTEP | {"RCPT": [b"450 first", b"250 r", b"450 both"]}) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        assert tree.ask("queue") == []
        assert tree.run("queue").stdout == b""
        tree.queue([b"a@x.example", b"b\xc3\xbc@x.example"], sender=b"")
        n = tree.new_messid()
        tree.wait_for(rb"\ndelivery \d+: deferral: ")
        until(lambda: scheduled(tree) == 1)
        [item] = tree.ask("queue")
        birth, due = item["birth"], item["recips"][0]["next"]
        assert due in first_dues(birth, 20)
        assert 0 <= clock.now() - birth < 60
        size = (tree.home / "queue" / paths.mess(MessId(n))).stat().st_size
        assert item == {
            "messid": n,
            "birth": birth,
            "bytes": size,
            "sender": "",
            "state": "queued",
            "held": False,
            "bouncing": None,
            "last": "127.0.0.1 does not like recipient.\nRemote host said: 450 first\n"
            "Giving up on 127.0.0.1.\n",
            "recips": [
                {
                    "channel": "remote",
                    "address": "a@x.example",
                    "done": False,
                    "next": due,
                },
                {
                    "channel": "remote",
                    "address": "bü@x.example",
                    "done": True,
                    "next": None,
                },
            ],
            "more_recips": 0,
        }
        lines = tree.run("queue").stdout.decode().splitlines()
        assert lines[0].startswith(f"#{n}  20")
        assert lines[0].endswith(f"  {size} bytes  <>  queued")
        assert re.fullmatch(
            r"    remote  a@x\.example  next attempt in \d+ min", lines[1]
        )
        assert lines[2] == "    remote  bü@x.example  done"
        assert lines[3].startswith("    last report: 127.0.0.1 does not like")
        # The same by qmail's own names, which need nothing to run.
        read = tree.program("qmail-qread").stdout.decode()
        assert f" #{n}  {size}  <>" in read
        assert "remote\ta@x.example\n" in read
        tree.stop()


def test_flush_tries_what_is_named_and_nothing_else(tree: Tree) -> None:
    tree.alias("later", "|exit 111\n")
    with Peer(LOCKSTEP | {"MAIL": b"451 no"}) as peer:
        tree.control("smtproutes", f"x.example:127.0.0.1:{peer.port}\n:127.0.0.1:1\n")
        tree.control("concurrencyremote", "1\n")
        tree.start()
        local, here, there = defer(
            tree, b"later@here.example", b"a@x.example", b"b@y.example"
        )
        for what, said, tried in (
            ("local", "local", {local}),
            ("remote", "remote", {here, there}),
            (f"host:127.0.0.1:{peer.port}", None, {here}),
            (f"mess:{there}", None, {there}),
            (str(local), f"mess:{local}", {local}),
            ("all", None, {local, here, there}),
        ):
            mark = len(tree.log)
            done = tree.run("flush", what)
            assert done.stdout == f"flush {said or what}: done\n".encode()
            tree.wait_for(rb"\ndelivery \d+: deferral: ", count=len(tried))
            until(lambda: scheduled(tree) == 3)
            found = re.findall(rb"starting delivery \d+: msg (\d+) ", tree.log[mark:])
            assert {int(each) for each in found} == tried
        assert tree.ask("flush") == {}
        tree.wait_for(rb"\ndelivery \d+: deferral: ", count=3)
        tree.stop()


@pytest.mark.parametrize("kind", ["local", "remote", "all", "host", "mess"])
def test_hold_lasts_over_restarts_until_released(tree: Tree, kind: str) -> None:
    tree.alias("box", "|true\n")
    with Peer(LOCKSTEP) as peer, Peer(LOCKSTEP) as other:
        tree.control(
            "smtproutes",
            f"x.example:127.0.0.1:{peer.port}\n:127.0.0.1:{other.port}\n",
        )
        tree.start()
        if kind == "mess":
            tree.run("hold", "all")
            tree.queue([b"box@here.example", b"a@x.example"])
            held = f"mess:{tree.new_messid()}"
            tree.run("hold", held)
            tree.run("release", "local")
            tree.run("release", "remote")
        else:
            held = f"host:127.0.0.1:{peer.port}" if kind == "host" else kind
            assert tree.run("hold", held).stdout == f"hold {held}: done\n".encode()
            tree.queue([b"box@here.example", b"a@x.example"])
        tree.queue([b"box@here.example", b"c@y.example"])
        want = {
            "local": {b"c@y.example", b"a@x.example"},
            "remote": {b"box@here.example"},
            "all": set(),
            "host": {b"box@here.example", b"c@y.example"},
            "mess": {b"box@here.example", b"c@y.example"},
        }[kind]
        tree.reports(*want)
        names = ["local", "remote"] if kind == "all" else [held]
        assert tree.ask("status")["held"] == names
        assert tree.stop() == 0
        before = tree.log.count(b"starting delivery ")
        assert before == {"local": 2, "remote": 2, "all": 0, "host": 3, "mess": 2}[kind]
        tree.start()
        # What is held after the restart is not tried, whatever one asks for.
        assert tree.ask("status")["held"] == names
        tree.run("flush", "all")
        assert tree.ask("status")["held"] == names
        assert tree.log.count(b"starting delivery ") == before
        left = len({path.name for path in tree.queue_files()})
        tree.run("release", "all" if kind == "all" else held)
        tree.wait_for(rb"end msg \d+\n", count=left)
        assert tree.ask("status")["held"] == []
        assert tree.stop() == 0
        assert tree.log.count(b"starting delivery ") == 4
    assert len(peer.contents) == len(other.contents) == 1
    assert not tree.queue_files()


def test_hold_of_a_message_that_is_still_in_todo_lasts(tree: Tree) -> None:
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.control("concurrencyremote", "0\n")
        tree.start()
        tree.queue([b"a@x.example"])
        held = f"mess:{tree.new_messid()}"
        assert tree.ask("queue")[0]["state"] == "todo"
        tree.run("hold", held)
        assert tree.stop() == 0
        tree.control("concurrencyremote", "20\n")
        tree.start()
        assert tree.ask("status")["held"] == [held]
        tree.queue([b"b@x.example"])
        tree.wait_for(rb"delivery 1: success: ")
        assert tree.log.count(b"starting delivery ") == 1
        tree.run("release", held)
        tree.wait_for(rb"delivery 2: success: ")
        assert tree.stop() == 0
    assert not tree.queue_files()


def test_remove_takes_a_message_out_without_a_bounce(tree: Tree) -> None:
    with Peer(LOCKSTEP | {"MAIL": [b"451 no", b"250 s"]}, gate="DOT") as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        [gone] = defer(tree, b"a@x.example")
        assert tree.run("remove", str(gone)).stdout == b"message %d is removed\n" % gone
        until(lambda: not tree.queue_files())
        assert tree.ask("queue") == []
        again = tree.run("remove", str(gone), check=False)
        assert (again.returncode, again.stderr) == (
            1,
            b"qsend remove: no message %d\n" % gone,
        )
        told = tree.run("remove", "--json", str(gone), check=False)
        assert (told.returncode, json.loads(told.stdout)) == (
            1,
            {"error": f"no message {gone}"},
        )
        tree.queue([b"b@x.example"])
        busy = tree.new_messid()
        peer.wait_at_gate()
        refused = tree.run("remove", str(busy), check=False)
        assert (refused.returncode, refused.stderr) == (
            1,
            b"qsend remove: message %d is being delivered; hold it first\n" % busy,
        )
        peer.open_gate()
        tree.wait_for(rb"end msg %d\n" % busy)
        # One that waits in todo, and one that waits held.
        tree.run("hold", "remote")
        tree.queue([b"c@x.example"])
        waiting = tree.new_messid()
        assert tree.ask("remove", str(waiting)) == {}
        until(lambda: not tree.queue_files())
        tree.run("release", "remote")
        assert tree.stop() == 0
    assert b"bounce msg" not in tree.log
    assert len(peer.contents) == 1


def test_wrong_usage_and_wrong_names_are_told_apart(tree: Tree) -> None:
    for words, code, text in (
        (["status"], 1, f"qsend is not running in {tree.home}"),
        (["queue"], 111, f"qsend is not running in {tree.home}"),
        (["flush", "all"], 111, "is not running"),
        (["hold"], 100, "required: WHAT"),
        (["remove", "x"], 100, "invalid int value: 'x'"),
        (["status", "--jso"], 100, "unrecognized arguments: --jso"),
    ):
        done = tree.run(words[0], *words[1:], check=False)
        assert done.returncode == code, words
        assert text in done.stderr.decode()
    told = tree.run("status", "--json", check=False)
    assert json.loads(told.stdout) == {"error": f"qsend is not running in {tree.home}"}
    tree.start()
    expected = "expected all, local, remote, host:NAME or mess:NUMBER, found"
    for words in (["flush", "bogus"], ["hold", "host:"], ["release", "mess:1x"]):
        done = tree.run(words[0], *words[1:], check=False)
        assert done.returncode == 1
        assert done.stderr.decode() == f"qsend {words[0]}: {expected} {words[1]!r}\n"
    assert tree.ask("status")["held"] == []
    assert tree.stop() == 0


@pytest.mark.root
def test_others_may_not_ask(tree: Tree) -> None:
    tree.start()
    done = tree.call(tree.command("stop"), uid=64_906, check=False)
    assert done.returncode == 100
    assert done.stderr == (
        b"qsend stop: only root and the account that runs qmail-send may ask\n"
    )
    assert tree.ask("status")["exiting"] is False
    assert tree.stop() == 0


def test_every_command_teaches(tree: Tree) -> None:
    listed = tree.call(
        [str(tree.installation.python), "-m", "qsend", "--help"]
    ).stdout.decode()
    names = re.findall(
        r"(?m)^  (\w+) +\w", listed.partition("commands:")[2].split("\n\n")[0]
    )
    assert len(names) >= 11
    for name in names:
        text = tree.run(name, "--help").stdout.decode()
        assert text.startswith(f"usage: qsend {name}")
        assert "--home" in text
