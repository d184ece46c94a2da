"""One queue, two mail systems: ours takes what qmail leaves, and the reverse."""

from __future__ import annotations

import math
import signal
import subprocess

import pytest

from qsend.core.model import SPLIT, MessId
from qsend.formats import paths
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.classicqueue import (
    INJECTOR,
    LOCAL,
    QP,
    RECEIVED,
    REMOTE,
    ClassicQueue,
    Entry,
    ago,
    place,
)
from tests.tree.harness import Tree

pytestmark = pytest.mark.root

BODY = b"Subject: test\n\nbody\n"
SENDER = b"me@here.example"
DEFERRING = {**LOCKSTEP, "MAIL": b"451 later"}


@pytest.fixture
def queue(tree: Tree) -> ClassicQueue:
    """The queue of a tree whose aliases ok, no, later and me do what they say."""
    tree.alias("ok", "./Maildir/\n")
    tree.alias("me", "./returned/\n")
    tree.alias("no", "|echo no such box; exit 100\n")
    tree.alias("later", "|exit 111\n")
    tree.maildir()
    tree.maildir("returned")
    return ClassicQueue(tree)


def route(tree: Tree, peer: Peer) -> None:
    tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")


def deliveries(tree: Tree, name: str = "Maildir") -> list[bytes]:
    return [path.read_bytes() for path in (tree.home / f"alias/{name}/new").iterdir()]


def trouble(tree: Tree) -> list[bytes]:
    marks = (b"alert", b"warning")
    return [each for each in tree.log.splitlines() if each.startswith(marks)]


def finish(tree: Tree, queue: ClassicQueue) -> None:
    """The tree ends well and has left nothing."""
    assert tree.stop() == 0
    assert not trouble(tree)
    assert not queue.entries()


# What a classic qmail-queue injects


def test_trigger_of_a_classic_qmail_queue_is_heard(
    tree: Tree, queue: ClassicQueue
) -> None:
    with Peer(LOCKSTEP) as peer:
        route(tree, peer)
        tree.start()
        messid = queue.add([b"ok@here.example", b"a@x.example"], sender=b"")
        queue.pull_trigger()
        size = len(RECEIVED + BODY)
        tree.wait_for(
            rb"new msg %d\ninfo msg %d: bytes %d from <> qp %d uid %d\n"
            % (messid, messid, size, QP, INJECTOR)
        )
        tree.wait_for(rb"end msg %d\n" % messid)
    [content] = deliveries(tree)
    assert content == (
        b"Return-Path: <>\nDelivered-To: ok@here.example\n" + RECEIVED + BODY
    )
    assert peer.contents == [(RECEIVED + BODY).replace(b"\n", b"\r\n") + b".\r\n"]
    finish(tree, queue)


def test_many_pulls_and_foreign_names_in_todo_do_no_harm(
    tree: Tree, queue: ClassicQueue
) -> None:
    (queue.path / "todo/.nfs001").write_text("not a number")
    tree.start()
    messids = [queue.add([b"ok@here.example"]) for _ in range(5)]
    for _ in range(100):
        queue.pull_trigger()
    tree.wait_for(rb"end msg \d+\n", count=5)
    assert len(deliveries(tree)) == 5
    assert {tree.log.count(b"new msg %d\n" % messid) for messid in messids} == {1}
    (queue.path / "todo/.nfs001").unlink()
    finish(tree, queue)


def test_mail_that_came_while_nothing_ran_is_delivered_at_start(
    tree: Tree, queue: ClassicQueue
) -> None:
    whole = queue.add([b"ok@here.example"])
    # qmail-clean was stopped between the two it removes; nothing is lost by that.
    half = queue.add([b"ok@here.example"])
    (queue.path / paths.intd(half)).unlink()
    # qmail-send was stopped while it wrote these: they are written anew.
    begun = queue.add([b"ok@here.example"])
    queue.put(paths.info(begun), b"Fwrong@here.example\0", ago(0))
    queue.put(paths.recips(LOCAL, begun), b"Tno@here.example\0Tok", ago(0))
    tree.start()
    tree.wait_for(rb"end msg \d+\n", count=3)
    assert len(deliveries(tree)) == 3
    assert {b"end msg %d" % each for each in (whole, half, begun)} <= set(
        tree.log.splitlines()
    )
    finish(tree, queue)


def test_message_without_recipients_ends_at_once(
    tree: Tree, queue: ClassicQueue
) -> None:
    messid = queue.add([])
    tree.start()
    tree.wait_for(rb"info msg %d: .*\nend msg %d\n" % (messid, messid))
    finish(tree, queue)


# What a classic qmail-send leaves


def test_schedule_of_a_classic_qmail_send_is_kept(
    tree: Tree, queue: ClassicQueue
) -> None:
    messid = queue.add([b"unused"])
    queue.preprocess(
        messid, sender=SENDER, birth=ago(50), bounce=b"<x@y>:\nold reason\n\n"
    )
    local, remote = paths.recips(LOCAL, messid), paths.recips(REMOTE, messid)
    queue.put(local, b"Dgone@here.example\0Tno@here.example\0", ago(-3600))
    queue.put(remote, b"Ta@x.example\0Db@x.example\0", ago(1))
    with Peer(LOCKSTEP) as peer:
        route(tree, peer)
        tree.start()
        tree.wait_for(rb"msg %d to remote a@x.example\n" % messid)
        tree.wait_for(rb"delivery 1: success: ")
        tree.wait_for(rb"status: local 0/10 remote 0/20\n")
        assert b" to local " not in tree.log
        tree.signal(signal.SIGALRM)
        tree.wait_for(rb"msg %d to local no@here.example\n" % messid)
        tree.wait_for(rb"bounce msg %d qp \d+\n" % messid)
        tree.wait_for(rb"end msg \d+\n", count=2)
    assert [each for each in peer.commands if each.startswith(b"RCPT")] == [
        b"RCPT TO:<a@x.example>"
    ]
    [bounce] = deliveries(tree, "returned")
    assert b"<x@y>:\nold reason\n\n<no@here.example>:\nno such box\n\n--- " in bounce
    assert bounce.endswith(b"Return-Path: <me@here.example>\n" + RECEIVED + BODY)
    finish(tree, queue)


def test_what_a_classic_qmail_send_only_had_to_end_is_ended(
    tree: Tree, queue: ClassicQueue
) -> None:
    bouncing, done, marked = (queue.add([b"unused"]) for _ in range(3))
    queue.preprocess(bouncing, sender=SENDER, birth=ago(9), bounce=b"<x@y>:\nno\n\n")
    queue.preprocess(done, sender=SENDER, birth=ago(9))
    # Killed between its last mark and the removal of the channel file.
    queue.preprocess(marked, sender=SENDER, birth=ago(9))
    queue.put(paths.recips(REMOTE, marked), b"Da@x.example\0", ago(9))
    tree.start()
    tree.wait_for(rb"end msg \d+\n", count=4)
    [bounce] = deliveries(tree, "returned")
    assert b"<x@y>:\nno\n\n--- " in bounce
    assert b" to remote " not in tree.log
    finish(tree, queue)


def test_expired_message_of_a_classic_queue_bounces_after_one_more_attempt(
    tree: Tree, queue: ClassicQueue
) -> None:
    messid = queue.add([b"unused"])
    queue.preprocess(messid, sender=b"list-@here.example-@[]", birth=ago(604801))
    queue.put(paths.recips(LOCAL, messid), b"Tlater@here.example\0", ago(1))
    tree.alias("list-default", "./returned/\n")
    tree.start()
    tree.wait_for(rb"delivery 1: failure: ")
    tree.wait_for(rb"end msg \d+\n", count=2)
    [bounce] = deliveries(tree, "returned")
    assert b"Delivered-To: list-@here.example\n" in bounce
    finish(tree, queue)


# What ours leaves


def is_due_by_qmail(birth: int, due: int, skip: int) -> bool:
    """Whether the due time is one that nextretry() gives for an attempt just made."""
    tries = math.isqrt(due - birth)
    return tries**2 == due - birth and skip <= tries <= skip + 6


def test_deferred_message_is_left_as_qmail_send_leaves_it(
    tree: Tree, queue: ClassicQueue
) -> None:
    with Peer(DEFERRING) as peer:
        route(tree, peer)
        tree.start()
        begun = ago(0)
        recips = [
            b"ok@here.example", b"later@here.example", b"Later@HERE.example",
            b"no@here.example", b"a@x.example", b"b@y.example",
        ]  # fmt: skip
        qp = tree.queue(recips, BODY, SENDER, uid=INJECTOR)
        messid = MessId(tree.new_messid())
        tree.wait_for(rb"delivery \d+: ", count=len(recips))
        assert tree.stop() == 0
    found = queue.entries()
    mess = found.pop(place("mess", messid))
    assert (mess.owner, mess.group, mess.mode) == ("qmailq", "qmail", 0o644)
    assert mess.inode == messid
    first, _, rest = mess.content.partition(b"\n")
    assert first.startswith(
        b"Received: (qmail %d invoked by uid %d); " % (qp, INJECTOR)
    )
    assert rest == BODY
    info = found.pop(place("info", messid))
    assert begun <= info.mtime <= begun + 30
    ours = ("qmails", "qmail", 0o600)

    def is_ours(entry: Entry, content: bytes) -> bool:
        return (entry.owner, entry.group, entry.mode, entry.content) == (*ours, content)

    assert is_ours(info, b"Fme@here.example\0")
    local, remote = (found.pop(place(each, messid)) for each in ("local", "remote"))
    assert is_ours(
        local,
        b"Dok@here.example\0Tlater@here.example\0TLater@HERE.example\0"
        b"Dno@here.example\0",
    )
    assert is_ours(remote, b"Ta@x.example\0Tb@y.example\0")
    assert is_due_by_qmail(info.mtime, local.mtime, 10)
    assert is_due_by_qmail(info.mtime, remote.mtime, 20)
    bounce = found.pop(f"bounce/{messid}")
    assert is_ours(bounce, b"<no@here.example>:\nno such box\n\n")
    assert not found
    assert not trouble(tree)


def test_mail_that_nothing_ran_for_is_left_as_qmail_queue_leaves_it(
    tree: Tree, queue: ClassicQueue
) -> None:
    tree.start()
    assert tree.stop_by_command() == 0
    qp = tree.queue([b"c@d", b"e@f"], BODY, b"a@b", uid=INJECTOR)
    found = queue.entries()
    [name] = (name for name in found if name.startswith("todo/"))
    messid = int(name.removeprefix("todo/"))
    todo = found.pop(name)
    content = b"u%d\0p%d\0Fa@b\0Tc@d\0Te@f\0" % (INJECTOR, qp)
    assert (todo.owner, todo.mode, todo.content) == ("qmailq", 0o644, content)
    assert found.pop(f"intd/{messid}") == todo
    mess = found.pop(f"mess/{messid % SPLIT}/{messid}")
    assert (mess.owner, mess.mode, mess.inode) == ("qmailq", 0o644, messid)
    assert not found


def test_ours_does_not_start_while_qmail_send_has_the_queue(
    tree: Tree, queue: ClassicQueue
) -> None:
    """qmail-send holds lock/sendmutex by flock; so does ours against it."""
    messid = queue.add([b"ok@here.example"])
    lock = ["flock", "--nonblock", str(queue.path / "lock/sendmutex")]
    done = subprocess.run(
        [*lock, *tree.command("start")], cwd="/", check=False, capture_output=True
    )
    assert done.returncode == 111
    assert done.stdout == b"alert: cannot start: qmail-send is already running\n"
    assert (queue.path / paths.todo(messid)).exists()
    tree.start()
    assert subprocess.run([*lock, "true"], check=False).returncode == 1
    tree.wait_for(rb"end msg %d\n" % messid)
    finish(tree, queue)
