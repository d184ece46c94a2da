"""What a whole tree makes of damage: in the queue, in the controls, on the disk."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qsend.core.model import Account, Channel, MessId
from qsend.formats import paths
from qsend.sysio import trigger
from qsend.sysio.accounts import load_accounts
from tests.queues import inject
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree, until


def box(tree: Tree) -> Path:
    tree.alias("box", "./Maildir/\n")
    return tree.maildir()


def count(maildir: Path) -> int:
    return len(list((maildir / "new").iterdir()))


def foreign(tree: Tree, envelope: bytes | None, message: bytes = b"x\n\ny\n") -> MessId:
    """Queue a message as a qmail-queue of qmail's own does."""
    account = Account(uid=tree.uid, gid=tree.uid)
    if tree.uid == 0:
        account = load_accounts(single_user=False).qmailq
    return inject(tree.home / "queue", message, envelope, account)


def pull(tree: Tree) -> None:
    trigger.pull(f"{tree.home}/queue/lock/trigger")


def aside(tree: Tree) -> dict[str, str]:
    """Number of each message set aside, and the reason."""
    found = (tree.home / "queue/aside").iterdir()
    return {path.name.split(".")[0]: (path / "reason").read_text() for path in found}


def test_foreign_qmail_queue_is_served_by_the_trigger(tree: Tree) -> None:
    maildir = box(tree)
    # One that came before the start, and one that did not get so far.
    early = foreign(tree, b"u7\0p8\0Fme@x.example\0Tbox@here.example\0")
    half = foreign(tree, None)
    tree.start()
    tree.wait_for(
        rb"new msg %d\ninfo msg %d: bytes 5 from <me@x.example> qp 8 uid 7\n"
        % (early, early)
    )
    tree.wait_for(rb"end msg %d\n" % early)
    later = foreign(tree, b"u7\0p9\0F\0Tbox@here.example\0Tbox@here.example\0")
    # The number may be that of the early one, which is free again.
    assert b"new msg" not in tree.log.rpartition(b"end msg %d\n" % early)[2]
    pull(tree)
    tree.wait_for(rb"info msg %d: bytes 5 from <> qp 9 uid 7\n" % later)
    tree.wait_for(rb"end msg %d\n" % later)
    assert count(maildir) == 3
    assert tree.stop() == 0
    assert {path.name for path in tree.queue_files()} == {str(half)}


@pytest.mark.parametrize(
    "envelope",
    [b"", b"garbage", b"u1\0p1\0Xyz\0Ta@b\0", b"u1\0p1\0Fa@b\0Tcut", b"\0" * 50],
    ids=["empty", "text", "record", "cut", "zeros"],
)
def test_damaged_todo_is_set_aside_and_others_go_on(
    tree: Tree, envelope: bytes
) -> None:
    maildir = box(tree)
    tree.start()
    bad = foreign(tree, envelope)
    good = foreign(tree, b"u1\0p2\0Fa@b\0Tbox@here.example\0")
    pull(tree)
    tree.wait_for(rb"end msg %d\n" % good)
    tree.find(rb"alert: .*\b%d\b" % bad)
    until(lambda: str(bad) in aside(tree))
    assert count(maildir) == 1
    assert tree.ask("queue") == []
    assert tree.stop() == 0
    [where] = (tree.home / "queue/aside").iterdir()
    names = {path.name for path in where.iterdir()}
    assert {"mess", "todo", "reason"} <= names
    assert (where / "todo").read_bytes() == envelope
    # It stays there, and a new start says nothing of it.
    mark = len(tree.log)
    tree.start()
    assert tree.stop() == 0
    assert b"alert" not in tree.log[mark:]
    assert where.exists()


def _cut(path: Path) -> None:
    os.truncate(path, 1)


def _scribble(path: Path) -> None:
    path.write_bytes(b"Zfoo\0Tbar")


@pytest.mark.parametrize("harm", [_cut, _scribble, Path.unlink])
@pytest.mark.parametrize("name", ["info", "remote", "mess"])
def test_damaged_file_of_a_queued_message_stops_only_that_message(
    tree: Tree, name: str, harm: Callable[[Path], None]
) -> None:
    maildir = box(tree)
    with Peer(LOCKSTEP | {"MAIL": [b"451 no", b"451 no", b"250 s"]}) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        for _ in range(2):
            tree.queue([b"a@x.example"], b"Subject: whole\n\nbody\n")
            messid = MessId(tree.new_messid())
            tree.wait_for(rb"\ndelivery \d+: deferral: ")
            file = tree.home / "queue" / paths.recips(Channel.REMOTE, messid)
            until(file.exists)
        tree.stop()
        where = {
            "info": paths.info(messid),
            "remote": paths.recips(Channel.REMOTE, messid),
            "mess": paths.mess(messid),
        }[name]
        harm(tree.home / "queue" / where)
        restart = len(tree.log)
        tree.start()
        tree.run("flush", "all")
        tree.queue([b"box@here.example"])
        tree.wait_for(rb"delivery \d+: success: did_1\+0\+0/\n")
        tree.find(rb"\ndelivery \d+: success: 127")
        assert count(maildir) == 1
        match name, harm:
            case "mess", _ if harm is not Path.unlink:
                # A shorter message is still a message; nobody can tell.
                tree.find(rb"end msg %d\n" % messid)
            case "remote", _ if harm is Path.unlink:
                # No recipients are left: so ends every message.
                tree.find(rb"end msg %d\n" % messid)
            case "info", _ if harm is Path.unlink:
                # So looks one that is being removed: nothing is tried or told.
                assert b"msg %d" % messid not in tree.log[restart:]
                assert (tree.home / "queue" / paths.mess(messid)).exists()
            case _:
                tree.find(rb"(?m)^(alert|warning): .*\b%d\b" % messid)
                until(lambda: str(messid) in aside(tree))
        until(lambda: tree.ask("queue") == [])
        assert tree.stop() == 0
    assert b"Traceback" not in tree.log
    assert b"lost " not in tree.log


@pytest.mark.parametrize("channel", ["concurrencylocal", "concurrencyremote"])
def test_limit_of_zero_holds_a_channel(tree: Tree, channel: str) -> None:
    maildir = box(tree)
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.control(channel, "0\n")
        tree.start()
        tree.queue([b"box@here.example", b"a@x.example"])
        tree.wait_for(rb"delivery 1: success: ")
        assert tree.log.count(b"starting delivery ") == 1
        tree.control(channel, None)
        assert tree.run("reload").returncode == 0
        tree.wait_for(rb"delivery 2: success: ")
        assert tree.stop() == 0
    assert count(maildir) == len(peer.contents) == 1
    assert not tree.queue_files()


def refused(tree: Tree) -> tuple[int, bytes]:
    """Exit code and the only line of a start that does not come up."""
    done = tree.run("start", check=False)
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1, done.stdout
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("concurrencylocal", "ten\n", rb"concurrencylocal:1: expected a number"),
        ("virtualdomains", "a:b\nc\n", rb"virtualdomains:2: expected key:value"),
        ("durability", "some\n", rb"durability:1: expected .*full"),
        ("timeoutterm", "-1\n", rb"timeoutterm:1: expected a number"),
        ("smtproutes", "a:b:99999\n", rb"smtproutes:1: expected"),
        ("resolvers", "not.an.address\n", rb"resolvers:1: expected"),
        ("patrn", "9\n", rb"patrn:1: expected"),
        ("me", "\n", rb"me:1: expected"),
    ],
)
def test_control_that_cannot_be_parsed_is_named(
    tree: Tree, name: str, content: str, fault: bytes
) -> None:
    tree.control(name, content)
    code, line = refused(tree)
    assert code == 100
    assert re.match(rb"alert: cannot start: control/" + fault, line), line
    checked = tree.run("check", check=False)
    assert checked.returncode == 1
    assert re.search(rb"(?m)^control/" + fault, checked.stdout)


def test_missing_me_and_locals_cannot_start(tree: Tree) -> None:
    for name in ("me", "locals"):
        tree.control(name, None)
    code, line = refused(tree)
    assert code == 100
    assert line.startswith(b"alert: cannot start: control/me:")


def _no_queue(queue: Path) -> None:
    queue.rename(queue.with_name("elsewhere"))


def _queue_is_a_file(queue: Path) -> None:
    shutil.rmtree(queue)
    queue.touch()


def _no_split_directory(queue: Path) -> None:
    (queue / "info/13").rmdir()


def _open_to_all(queue: Path) -> None:
    (queue / "mess/3").chmod(0o777)


def _no_mutex(queue: Path) -> None:
    (queue / "lock/sendmutex").unlink()


def _no_trigger(queue: Path) -> None:
    (queue / "lock/trigger").unlink()
    (queue / "lock/trigger").touch()


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (_no_queue, b"queue"),
        (_queue_is_a_file, b"queue"),
        (_no_split_directory, b"queue/info/13"),
        (_open_to_all, b"queue/mess/3"),
        (_no_mutex, b"queue/lock/sendmutex"),
        (_no_trigger, b"queue/lock/trigger"),
    ],
)
def test_queue_that_cannot_be_used_is_one_line(
    tree: Tree, harm: Callable[[Path], None], what: bytes
) -> None:
    harm(tree.home / "queue")
    code, line = refused(tree)
    assert code == 111
    assert line.startswith(b"alert: cannot start: ")
    assert what in line
    checked = tree.run("check", check=False)
    assert checked.returncode == 1
    assert what in checked.stdout


@pytest.mark.root
def test_queue_of_a_wrong_owner_is_one_line(tree: Tree) -> None:
    os.chown(tree.home / "queue/remote/7", 64_908, -1)
    code, line = refused(tree)
    assert code == 111
    assert b"/queue/remote/7: expected owner" in line
    tree.run("setup")
    tree.start()
    assert tree.stop() == 0


@pytest.fixture
def mounted(tree: Tree) -> Iterator[Path]:
    """The queue as a small file system of its own."""
    queue = tree.home / "queue"
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=750", "tmpfs", str(queue)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        tree.run("setup")
        yield queue
    finally:
        tree.kill()
        subprocess.run(["umount", queue], check=True)


@pytest.mark.root
def test_read_only_queue_is_one_line(tree: Tree, mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    code, line = refused(tree)
    assert code == 111
    assert line.startswith(b"alert: cannot start: ")
    assert b"ead-only file system" in line
    checked = tree.run("check", check=False)
    assert checked.returncode == 1
    assert b"read-only file system" in checked.stdout


@pytest.mark.root
def test_full_queue_refuses_mail_for_now_and_keeps_what_it_has(
    tree: Tree, mounted: Path
) -> None:
    maildir = box(tree)
    tree.alias("later", "|exit 111\n")
    tree.control("queueminfree", "0\n")
    tree.start()
    [send] = tree.pids("qmail-send")
    tree.run("hold", "local")
    tree.queue([b"box@here.example"])
    tree.queue([b"later@here.example"])
    tree.new_messid()
    kept = tree.new_messid()
    filler = mounted / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    done = tree.program("qmail-inject", "box@here.example")
    assert done.returncode == 111
    assert done.stderr.count(b"\n") == 1
    tree.run("release", "local")
    # Neither can be written down, and neither is lost; send goes on.
    tree.wait_for(rb"\ndelivery \d: ", count=2)
    tree.find(rb"\n(warning|alert): .*")
    assert tree.pids("qmail-send") == [send]
    filler.unlink()
    tree.queue([b"box@here.example"])
    tree.wait_for(rb"\ndelivery \d+: success: did_1\+0\+0/\n")
    assert tree.stop() == 0
    assert count(maildir) == 2
    tree.start()
    until(lambda: [each["messid"] for each in tree.ask("queue")] == [kept])
    assert tree.stop() == 0
    assert (mounted / paths.info(MessId(kept))).exists()


def test_peers_of_the_injection_socket_that_speak_garbage_harm_nobody(
    tree: Tree,
) -> None:
    maildir = box(tree)
    tree.start()
    path = str(tree.home / "run/enqueue.sock")
    socks = []
    for junk in (b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 60_000, b"", b"\0\0\0\1M"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(path)
        sock.send(junk)
        socks.append(sock)
    tree.queue([b"box@here.example"])
    tree.wait_for(rb"end msg \d+\n")
    for sock in socks:
        sock.close()
    assert count(maildir) == 1
    assert tree.stop() == 0
    assert not tree.queue_files()
