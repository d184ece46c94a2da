"""Ten thousand and a hundred thousand queued messages: start, answers, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from qsend.core.model import SPLIT
from qsend.formats.todo import Envelope, render_todo
from qsend.sysio import clock, privilege
from qsend.sysio.accounts import load_accounts
from qsend.sysio.fork import fork_child
from qsend.sysio.queuewriter import QueueWriter
from tests.smtpsink import Sink
from tests.torture.ledger import Log, follow
from tests.tree.harness import Installation, Tree

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.serial]

MANY = 100_000
MEMORY_MAX = 100 << 20
ANSWER_S = 2.0


@pytest.fixture
def big_tree(installation: Installation, open_tmp: Path) -> Iterator[Tree]:
    """A tree in memory, where that may be mounted: a disk takes minutes."""
    options = ["-t", "tmpfs", "-o", "size=4g,nr_inodes=0"]
    mount = ["mount", *options, "none", str(open_tmp)]
    is_mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    open_tmp.chmod(0o755)
    try:
        with Tree(installation, open_tmp / "home") as made:
            yield made
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", open_tmp], check=True)


def add_todo(tree: Tree, count: int, recip: str) -> None:
    """Queue messages as enqueue does, unsynced; `%d` in `recip` is their number."""

    def write() -> int:
        privilege.drop(load_accounts(single_user=False).qmailq)
        writer = QueueWriter(str(tree.home / "queue"))
        for number in range(count):
            address = recip.replace("%d", str(number)).encode()
            envelope = Envelope(uid=0, pid=1, sender=b"me@x.example", recips=(address,))
            draft = writer.begin(b"Received: (test)\n")
            draft.write_message(b"Subject: test\n\nbody\n")
            draft.write_envelope(render_todo(envelope))
            files, _dirs = draft.seal()
            for fd in files:
                os.close(fd)
            draft.publish()
        return 0

    _pid, status = os.waitpid(fork_child(write, []), 0)
    assert status == 0


def add_queued(tree: Tree, count: int, channel: str, recip: str, due: int) -> None:
    """Queue messages that are preprocessed, for one recipient; due at `due`."""
    accounts = load_accounts(single_user=False)
    queue, owner = tree.home / "queue", accounts.qmails
    for number in range(count):
        address = recip.replace("%d", str(number)).encode()
        messid = _create(f"{queue}/mess/new", b"Subject: x\n\n", accounts.qmailq.uid)
        split = f"{messid % SPLIT}/{messid}"
        os.rename(f"{queue}/mess/new", f"{queue}/mess/{split}")  # noqa: TID251
        _create(f"{queue}/info/{split}", b"Fme@x.example\0", owner.uid)
        recips = f"{queue}/{channel}/{split}"
        _create(recips, b"T%b\0" % address, owner.uid)
        os.utime(recips, (due, due))


def _create(path: str, content: bytes, uid: int) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.fchown(fd, uid, -1)
    os.write(fd, content)
    number = os.fstat(fd).st_ino
    os.close(fd)
    return number


def send_memory(tree: Tree) -> int:
    """Bytes of send that nobody shares, and the most it ever had resident."""
    [pid] = tree.pids("qmail-send")
    return int(psutil.Process(pid).memory_full_info().uss)


def answer_s(tree: Tree, *command: str) -> float:
    """How long the running tree takes to answer a command."""
    begin_mono = clock.mono()
    tree.run(*command)
    return clock.mono() - begin_mono


def start(tree: Tree) -> Log:
    """Start the tree; its log is read all the time, or send would wait for us."""
    tree.start(until=b"")
    log = follow(tree)
    assert log.wait_said(rb"status: ", 1, 30)
    return log


def stop(tree: Tree, log: Log) -> int:
    """End the tree; its exit code."""
    assert tree.process is not None
    tree.process.terminate()
    assert log.wait_over(60)
    return tree.process.wait(10)


def test_ten_thousand_queued_messages_start_at_once(big_tree: Tree) -> None:
    tree = big_tree
    with Sink() as sink:
        tree.control("smtproutes", f":127.0.0.1:{sink.port}\n")
        add_todo(tree, 5000, "todo-%d@d%d.example")
        add_queued(tree, 5000, "remote", "queued-%d@d%d.example", clock.now() - 1)
        log = start(tree)
        begin_mono = clock.mono()
        assert log.wait_said(rb"starting delivery 1: ", 1, 30)
        tell(f"first delivery after {clock.mono() - begin_mono:.2f} s")
        assert clock.mono() - begin_mono < 2
        assert answer_s(tree, "status") < ANSWER_S
        assert answer_s(tree, "flush", "all") < ANSWER_S
        assert log.wait_said(rb"end msg \d+$", 10_000, 120)
        tell(f"drained after {clock.mono() - begin_mono:.2f} s")
        assert stop(tree, log) == 0
        assert len({mail.recips[0] for mail in sink.mails}) == 10_000
        assert len(sink.mails) == 10_000
    assert not tree.queue_files()


def test_hundred_thousand_that_wait_for_their_time(big_tree: Tree) -> None:
    tree = big_tree
    begin_mono = clock.mono()
    add_queued(tree, MANY, "remote", "a%d@far.example", clock.now() + 3600)
    tell(f"made in {clock.mono() - begin_mono:.2f} s")
    begin_mono = clock.mono()
    log = start(tree)
    status = tree.ask("status")
    tell(f"loaded in {clock.mono() - begin_mono:.2f} s")
    tell(f"send has {send_memory(tree) / 2**20:.1f} MiB")
    assert status["channels"]["remote"]["scheduled"] == MANY
    assert send_memory(tree) < MEMORY_MAX
    assert answer_s(tree, "status") < ANSWER_S
    # All have to be read to find who has mail for that host.
    assert answer_s(tree, "flush", "host:elsewhere.example") < ANSWER_S
    assert answer_s(tree, "status") < ANSWER_S
    tell(f"send has {send_memory(tree) / 2**20:.1f} MiB")
    assert send_memory(tree) < MEMORY_MAX
    assert stop(tree, log) == 0


@pytest.mark.parametrize(
    ("channel", "recip", "hold"),
    [
        ("remote", "a%d@held.example", "host:held.example"),
        ("remote", "a%d@d%d.example", "remote"),
        ("local", "a%d@here.example", "local"),
    ],
)
def test_hundred_thousand_that_are_held_take_little_memory(
    big_tree: Tree, channel: str, recip: str, hold: str
) -> None:
    tree = big_tree
    log = start(tree)
    tree.run("hold", hold)
    assert stop(tree, log) == 0
    add_queued(tree, MANY, channel, recip, clock.now() - 1)
    log = start(tree)
    peak, waiting = 0, [0, 1, 2]
    while len(set(waiting)) > 1:  # until it is the same three times
        waiting = [*waiting[1:], _waiting(tree, channel)]
        peak = max(peak, send_memory(tree))
        log.wait_for(len(log.lines) + 1, 0.5)
    tell(f"{waiting[-1]} wait for their turn, in {peak / 2**20:.1f} MiB at most")
    assert peak < MEMORY_MAX
    assert answer_s(tree, "status") < ANSWER_S
    assert answer_s(tree, "flush", "all") < ANSWER_S
    assert stop(tree, log) == 0
    assert not any(line.text.startswith(b"starting") for line in log.lines)


def _waiting(tree: Tree, channel: str) -> int:
    found = tree.ask("status")["channels"][channel]
    assert found["waiting"] + found["scheduled"] == MANY
    return int(found["waiting"])


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
