"""qmail's own wires: classic programs below our send, ours below a classic send."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from pwd import getpwnam

import psutil
import pytest

from qsend.core.model import MessId
from qsend.formats import paths
from qsend.formats.classic import (
    CleanCommand,
    CleanOp,
    render_clean,
)
from tests.classicpeer import DEADLINE_S, FakeSend
from tests.smtppeer import LOCKSTEP, Peer, Script
from tests.tree.classicqueue import LOCAL, REMOTE, ClassicQueue
from tests.tree.harness import Tree, until
from tests.tree.outcomes import contents, hosts, retry, trouble

KINDS = ("lspawn", "rspawn", "clean")
BODY = b"Subject: test\n\nbody\n"
ME = b"me@here.example"


def classic(tree: Tree, *kinds: str) -> list[str]:
    """Options of start that put the home's own classic programs in place."""
    return [
        word
        for kind in kinds
        for word in (f"--{kind}", str(tree.home / f"bin/qmail-{kind}"))
    ]


def find(tree: Tree, kind: str) -> psutil.Process:
    """The classic program that start runs; none before it was exec'ed."""
    program = str(tree.home / f"bin/qmail-{kind}")

    def runs(process: psutil.Process) -> bool:
        try:
            return program in process.cmdline()
        except psutil.NoSuchProcess:  # or a zombie
            return False

    def running() -> list[psutil.Process]:
        [start, *_] = tree.family()
        return [each for each in start.children() if runs(each)]

    until(lambda: bool(running()))
    [found] = running()
    return found


class Gate:
    """A local delivery that tells of its begin, and waits to be let go."""

    def __init__(self, tree: Tree) -> None:
        home = tree.home / "alias"
        self._fds = []
        for name in ("begun", "gate"):
            os.mkfifo(home / name)
            os.chown(home / name, home.stat().st_uid, -1)
            self._fds.append(os.open(home / name, os.O_RDWR | os.O_NONBLOCK))
        tree.alias("slow", "|echo >begun; read line <gate; echo let go\n")

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)

    def wait(self) -> None:
        """Until one more delivery waits."""
        ready, _, _ = select.select([self._fds[0]], [], [], DEADLINE_S)
        assert ready
        assert os.read(self._fds[0], 1) == b"\n"

    def let_go(self) -> None:
        """One that waits, or the next."""
        os.write(self._fds[1], b"\n")


@pytest.fixture
def gate(tree: Tree) -> Iterator[Gate]:
    made = Gate(tree)
    yield made
    made.close()


# Classic programs below our send


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [
        ("tree", ["lspawn"]),
        ("tree", ["rspawn"]),
        ("tree", ["clean"]),
        ("tree", KINDS),
        ("user_tree", KINDS),
    ],
)
@pytest.mark.root
def test_every_fate_through_classic_programs(
    kind: str, kinds: Sequence[str], request: pytest.FixtureRequest
) -> None:
    tree: Tree = request.getfixturevalue(kind)
    tree.alias("ok", "./Maildir/\n")
    tree.alias("no", "|printf 'no\\n\\nsuch'; exit 100\n")
    tree.alias("later", "|test -e now || { echo later; exit 111; }\n")
    tree.alias("me-default", "./returned/\n")
    tree.maildir()
    tree.maildir("returned")
    names = (b"ok@here", b"a@good", b"no@here", b"a@bad", b"later@here", b"a@busy")
    recips = [each + b".example" for each in names]
    refusing: Script = {"RCPT": b"550 unknown"}
    busy: Script = {"MAIL": [b"451 busy", b"250 ok"]}
    with hosts(tree, good={}, bad=refusing, busy=busy) as peers:
        tree.start(*classic(tree, *kinds))
        tree.queue(recips, BODY, b"me-@here.example-@[]")
        ok, good, no, bad, later, wait = tree.reports(*recips)
        assert (ok, no, later) == (
            b"success: did_1+0+0/",
            b"failure: no//such",
            b"deferral: later/",
        )
        for report, letter, said in (
            (good, b"success: ", b"250_ok"),
            (bad, b"failure: ", b"550_unknown"),
            (wait, b"deferral: ", b"451_busy"),
        ):
            assert report.startswith(letter)
            assert said in report
        assert b"end msg" not in tree.log
        (tree.home / "alias/now").touch()
        retry(tree, LOCAL, REMOTE)
        tree.wait_for(rb"end msg \d+\n", count=2)
    assert b"MAIL FROM:<me-a=good.example@here.example>" in b"\n".join(
        peers["good"].commands
    )
    [delivered] = contents(tree, "Maildir")
    assert b"Return-Path: <me-ok=here.example@here.example>\n" in delivered
    [bounce] = contents(tree, "returned")
    assert b"<no@here.example>:\nno\n/such\n\n" in bounce
    assert b"<a@bad.example>:\n" in bounce
    assert tree.stop() == 0
    assert not tree.queue_files()
    assert trouble(tree) == []


@pytest.mark.root
def test_classic_programs_run_as_qmail_start_runs_them(tree: Tree) -> None:
    tree.start(*classic(tree, *KINDS))
    gid = getpwnam("qmailq").pw_gid
    for kind, account in (
        ("lspawn", "root"),
        ("rspawn", "qmailr"),
        ("clean", "qmailq"),
    ):
        process = find(tree, kind)
        uid = getpwnam(account).pw_uid
        assert set(process.uids()) == {uid}
        assert set(process.gids()) == {gid}
        groups = Path(f"/proc/{process.pid}/status").read_text().split("Groups:")[1]
        assert groups.split("\n")[0].split() in ([], [str(gid)])
        assert set(process.environ()) == {"PATH", "QSEND_HOME"}
        if kind == "lspawn":
            assert process.cmdline()[-1] == "./Mailbox"
    assert tree.stop() == 0


def test_status_line_names_what_classic_spawners_take(user_tree: Tree) -> None:
    tree = user_tree
    tree.control("concurrencylocal", "500\n")
    tree.control("concurrencyremote", "30\n")
    tree.start(*classic(tree, "lspawn", "rspawn"))
    tree.wait_for(rb"status: local 0/255 remote 0/30\n")
    assert tree.stop() == 0


@pytest.mark.root
def test_killed_classic_lspawn_is_replaced_and_its_delivery_repeated(
    tree: Tree, gate: Gate
) -> None:
    tree.start(*classic(tree, "lspawn"))
    tree.queue([b"slow@here.example"])
    gate.wait()
    killed = find(tree, "lspawn")
    killed.kill()
    tree.wait_for(rb"delivery 1: deferral: ")
    until(lambda: not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE)
    until(lambda: find(tree, "lspawn").pid != killed.pid)
    # What the killed one had started is still there, as it is with qmail.
    gate.let_go()
    retry(tree, LOCAL)
    gate.wait()
    gate.let_go()
    tree.wait_for(rb"delivery 2: success: let_go/did_0\+0\+1/\n")
    tree.wait_for(rb"end msg ")
    assert len([each for each in trouble(tree) if b"qmail-lspawn" in each]) == 1
    assert tree.stop() == 0
    assert not tree.queue_files()


@pytest.mark.root
def test_killed_classic_rspawn_is_replaced_and_its_delivery_repeated(
    tree: Tree,
) -> None:
    with Peer(LOCKSTEP, gate="greeting") as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start(*classic(tree, "rspawn"))
        tree.queue([b"a@x.example"])
        peer.wait_at_gate()
        killed = find(tree, "rspawn")
        killed.kill()
        tree.wait_for(rb"delivery 1: deferral: ")
        until(lambda: find(tree, "rspawn").pid != killed.pid)
        peer.open_gate()
        retry(tree, REMOTE)
        tree.wait_for(rb"delivery 2: success: ")
        tree.wait_for(rb"end msg ")
    assert tree.stop() == 0
    assert not tree.queue_files()


@pytest.mark.root
def test_killed_classic_clean_is_replaced_with_send(tree: Tree) -> None:
    tree.alias("ok", "./Maildir/\n")
    tree.maildir()
    tree.start(*classic(tree, "clean"))
    killed = find(tree, "clean")
    [send] = tree.pids("qmail-send")
    killed.kill()
    until(lambda: tree.pids("qmail-send") not in ([], [send]))
    assert find(tree, "clean").pid != killed.pid
    tree.queue([b"ok@here.example"])
    tree.wait_for(rb"end msg ")
    assert len(contents(tree, "Maildir")) == 1
    assert tree.stop() == 0
    assert not tree.queue_files()


@pytest.mark.root
def test_term_waits_for_classic_deliveries(tree: Tree, gate: Gate) -> None:
    tree.start(*classic(tree, *KINDS))
    tree.queue([b"slow@here.example"])
    gate.wait()
    members = tree.family()
    tree.signal(signal.SIGTERM)
    tree.wait_for(rb"status: local 1/10 remote 0/20 exitasap\n")
    gate.let_go()
    tree.wait_for(rb"delivery 1: success: let_go/did_0\+0\+1/\n")
    tree.wait_for(rb"end msg ")
    assert tree.wait() == 0
    assert tree.log.endswith(b"status: exiting\n")
    assert psutil.wait_procs(members, timeout=0)[1] == []
    assert not tree.queue_files()
    assert trouble(tree) == []


# Our classic programs below a classic send


class ClassicSend:
    """As much of a classic qmail-send as one message needs, on qmail-start's pipes.

    Works the queue with root's rights, but starts each program with the ids, the
    descriptors and the environment that qmail-start gives it.
    """

    def __init__(self, tree: Tree) -> None:
        self.queue = ClassicQueue(tree)
        self._stack = ExitStack()
        bin_ = tree.home / "bin"
        self.local = self._run("root", bin_ / "qmail-lspawn", "./Maildir/")
        self.remote = self._run("qmailr", bin_ / "qmail-rspawn")
        self.clean = self._run("qmailq", bin_ / "qmail-clean", has_slots=False)

    def _run(self, account: str, *argv: Path | str, has_slots: bool = True) -> FakeSend:
        found = getpwnam(account)
        gid = getpwnam("qmailq").pw_gid
        ids = ["setpriv", f"--reuid={found.pw_uid}", f"--regid={gid}", "--clear-groups"]
        closed = ["/bin/sh", "-c", 'umask 077; exec "$@" 2>&-', "sh"]
        env = {"PATH": "/usr/bin:/bin"}
        words = [*ids, *closed, *map(str, argv)]
        made = FakeSend(words, cwd="/", env=env, has_slots=has_slots)
        return self._stack.enter_context(made)

    def preprocess(
        self, messid: MessId, local: Sequence[bytes], remote: Sequence[bytes]
    ) -> None:
        """todo/N becomes info/N and the channel files."""
        self.queue.put(paths.info(messid), b"F%b\0" % ME, 1_000_000_000)
        for channel, recips in ((LOCAL, local), (REMOTE, remote)):
            content = b"".join(b"T%b\0" % recip for recip in recips)
            self.queue.put(paths.recips(channel, messid), content, 1_000_000_000)
        assert self.ask(CleanOp.TODO, messid) == b"+"

    def ask(self, op: CleanOp, messid: MessId) -> bytes:
        """What qmail-clean answers."""
        self.clean.write(render_clean(CleanCommand(op=op, messid=messid)))
        return self.clean.read(1)

    def end(self, messid: MessId) -> None:
        """All is delivered."""
        for channel in (LOCAL, REMOTE):
            (self.queue.path / paths.recips(channel, messid)).unlink()
        (self.queue.path / paths.info(messid)).unlink()
        assert self.ask(CleanOp.FOOP, messid) == b"+"

    def finish(self) -> list[int]:
        """As qmail-send ends: the exit codes."""
        codes = [each.finish() for each in (self.local, self.remote, self.clean)]
        self._stack.close()
        return codes


@pytest.mark.root
def test_classic_send_delivers_by_our_programs(tree: Tree, gate: Gate) -> None:
    tree.alias("no", "|id -un; exit 100\n")
    tree.alias("ok", "")
    tree.maildir()
    refusing: Script = {"RCPT": b"550 unknown"}
    with hosts(tree, good={}, bad=refusing) as peers:
        send = ClassicSend(tree)
        messid = send.queue.add([b"unused"], BODY)
        local = [b"slow@here.example", b"ok@here.example", b"no@here.example"]
        remote = [b"a@good.example", b"b@bad.example"]
        send.preprocess(messid, local, remote)
        path = paths.split_name(messid).encode()
        for delnum, recip in enumerate(local):
            send.local.command(delnum, path, ME, recip)
        for delnum, recip in enumerate(remote):
            send.remote.command(delnum, path, ME, recip)
        # Reports come as deliveries end, not as they were asked for.
        first = sorted(send.local.report() for _ in range(2))
        assert first == [(1, b"K", b"did 1+0+0\n"), (2, b"D", b"alias\n")]
        gate.wait()
        assert send.local.is_silent()
        gate.let_go()
        assert send.local.report() == (0, b"K", b"let go\ndid 0+0+1\n")
        good, bad = sorted(send.remote.report() for _ in remote)
        assert good[:2] == (0, b"K")
        assert bad[:2] == (1, b"D")
        assert b"550 unknown" in bad[2]
        send.end(messid)
        assert send.finish() == [0, 0, 0]
    [content] = contents(tree, "Maildir")
    assert content.startswith(b"Return-Path: <me@here.example>\nDelivered-To: ok@here")
    assert content.endswith(BODY)
    assert len(peers["good"].contents) == 1
    assert not send.queue.entries()


@pytest.mark.root
def test_end_of_a_classic_send_waits_for_what_runs(tree: Tree, gate: Gate) -> None:
    send = ClassicSend(tree)
    messid = send.queue.add([b"unused"], BODY)
    send.local.command(7, paths.split_name(messid).encode(), ME, b"slow@here.example")
    gate.wait()
    send.local.to_spawner.close()
    assert send.local.is_silent()
    gate.let_go()
    assert send.local.report() == (7, b"K", b"let go\ndid 0+0+1\n")
    assert send.finish() == [0, 0, 0]
