"""Ten thousand and a hundred thousand queued messages: start, answers, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from qsend.core.model import Channel
from qsend.sysio import clock
from tests.longqueue import Mail, fill_preprocessed, fill_todo
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


def mails(count: int, recip: str) -> Iterator[Mail]:
    """Messages for one recipient each; `%d` in `recip` is their number."""
    for number in range(count):
        address = recip.replace("%d", str(number)).encode()
        yield Mail(b"Subject: test\n\nbody\n", b"me@x.example", (address,))


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
        queue = tree.home / "queue"
        fill_todo(queue, mails(5000, "todo-%d@d%d.example"))
        old = mails(5000, "queued-%d@d%d.example")
        fill_preprocessed(queue, old, Channel.REMOTE, clock.now() - 1)
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
    far = mails(MANY, "a%d@far.example")
    due = clock.now() + 3600
    fill_preprocessed(tree.home / "queue", far, Channel.REMOTE, due)
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
    held = mails(MANY, recip)
    fill_preprocessed(tree.home / "queue", held, Channel(channel), clock.now() - 1)
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
