"""A queue tarred up, unpacked on another file system and repaired delivers all."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import HOST, Tree

pytestmark = [pytest.mark.root, pytest.mark.slow]

COUNT = 6
"""Messages of each sort."""
SENDER = b"sender@here.example"


@contextmanager
def other_disk(queue: Path) -> Iterator[None]:
    """Move the queue to a file system of its own, by tar; then it is a copy."""
    archive = queue.parent / "queue.tar"
    # Sorted, so that two copies give out the same inode numbers.
    command = ["tar", "--sort=name", "-C", str(queue), "-cpf", str(archive), "."]
    subprocess.run(command, check=True)
    away = queue.with_name(f"{queue.name}.old")
    if not queue.is_mount():
        queue.rename(away)
        queue.mkdir(mode=0o750)
    subprocess.run(["mount", "-t", "tmpfs", "none", queue], check=True)
    try:
        subprocess.run(["tar", "-C", queue, "-xpf", archive], check=True)
        yield
    finally:
        subprocess.run(["umount", queue], check=True)


def fill(tree: Tree) -> dict[str, int]:
    """Messages of every sort, all of them waiting; token to copies that must arrive."""
    expected = {}
    tree.control("queuelifetime", "604800\n")
    tree.start()
    sorts = {
        "deferred": [b"defer@here.example"],
        "bouncing": [b"defer@here.example", b"fail@here.example"],
        "remote": [b"r@far.example"],
        "both": [b"r@far.example", b"defer@here.example"],
    }
    for sort, recips in sorts.items():
        for at in range(COUNT):
            token = f"{sort}-{at}"
            body = f"Subject: x\n\ntoken {token}.\n".encode()
            tree.send(recips, body, sender=SENDER)
            expected[token] = 2 if sort in ("bouncing", "both") else 1
    tree.wait_for(rb"delivery \d+: (deferral|failure)", count=COUNT * 6)
    assert tree.stop() == 0
    for at in range(COUNT):
        token = f"queued-{at}"
        body = f"Subject: x\n\ntoken {token}.\n".encode()
        tree.send([b"defer@here.example"], body, sender=SENDER)
        expected[token] = 1
    return expected


def numbers(queue: Path) -> set[int]:
    return {int(path.name) for path in queue.glob("mess/*/*")}


def test_queue_moved_to_other_disks_and_repaired_delivers_everything_once(
    tree: Tree,
) -> None:
    maildir = tree.maildir()
    tree.alias("sender", "./Maildir/\n")
    tree.alias("defer", "|exit 111\n")
    tree.alias("fail", "|echo no such person; exit 100\n")
    tree.control("smtproutes", ":127.0.0.1:1\n")
    expected = fill(tree)
    queue = tree.home / "queue"
    old = numbers(queue)
    assert len(old) == 5 * COUNT
    with ExitStack() as stack:
        stack.enter_context(other_disk(queue))
        assert tree.run("repair").returncode == 0
        new = numbers(queue)
        assert new.isdisjoint(old)
        stack.enter_context(other_disk(queue))
        found = {path.stat().st_ino for path in queue.glob("mess/*/*")}
        # The same inode numbers, in another order: messages change places.
        assert len(found & new) > COUNT
        # An owner that root's tar could not keep, and a group that does not matter.
        shutil.chown(next(queue.glob("mess/*/*")), 0, 0)
        assert tree.run("repair", "--dry-run", check=False).returncode == 1
        assert tree.run("repair").returncode == 0
        assert numbers(queue) == found
        assert tree.run("repair").stdout.endswith(b"nothing to do\n")
        assert tree.run("check").returncode == 0
        with Peer(LOCKSTEP) as peer:
            tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
            tree.alias("defer", "./Maildir/\n")
            tree.start()
            tree.signal(signal.SIGALRM)
            # Each message, and the bounce of each that failed for somebody.
            tree.wait_for(rb"end msg \d+", count=6 * COUNT)
            assert tree.stop() == 0
            remote = peer.contents
        assert tree.queue_files() == []
    arrived = [path.read_bytes() for path in (maildir / "new").iterdir()]
    tokens = Counter(
        token.decode()
        for content in [*arrived, *remote]
        for token in re.findall(rb"token ([a-z]+-\d+)\.", content)
    )
    assert tokens == Counter(expected)
    bounces = [content for content in arrived if b"failure notice" in content]
    assert len(bounces) == COUNT
    assert all(b"no such person" in bounce for bounce in bounces)
    assert HOST in arrived[0].decode()
