"""kill -9 at system calls of a message's life, and that no call is missed."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.torture import deathpoints, deaths, injector, kills, world
from tests.torture.deathpoints import PAGE, Board
from tests.tree.conftest import installation, tree
from tests.tree.harness import Tree, until

__all__ = ["installation", "tree"]

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.serial]
CHANGES = {
    "write": "write", "writev": "", "pwrite64": "pwrite", "pwritev": "",
    "fsync": "fsync", "fdatasync": "", "syncfs": "syncfs", "link": "link",
    "linkat": "link", "unlink": "unlink", "unlinkat": "unlink", "rename": "rename",
    "renameat": "rename", "renameat2": "rename", "mkdir": "mkdir", "mkdirat": "mkdir",
    "rmdir": "", "utimensat": "utime", "truncate": "", "ftruncate": "ftruncate",
    "fchmod": "fchmod", "fchown": "fchown", "copy_file_range": "", "sendfile": "",
}  # fmt: skip
"""System calls that change a file or make it durable, and what the board calls them."""


@pytest.mark.parametrize(("title", "way"), [("qmail-lspawn", 6), ("qmail-send", 1)])
def test_death_at_any_call_loses_nothing(
    tree: Tree, tmp_path: Path, title: str, way: int
) -> None:
    found = deaths.run(tree, tmp_path, title, way)
    sys.stdout.write(f"{found.deaths}\n{found.again}\n")
    found.ledger.check()
    assert found.deaths.total() > 5
    assert found.again.total() > 3


def test_processes_die_at_every_call_that_strace_sees(
    tree: Tree, tmp_path: Path
) -> None:
    path, log = tmp_path / "board", tmp_path / "strace"
    path.write_bytes(bytes(PAGE))
    board = Board(str(path))
    with world.listening(world.Sink(random.Random(0))) as port:
        world.set_up(tree, port, entrances=())
        command = tree.command("start")
        run = "import sys; from qsend.cli.main import main; sys.exit(main())"
        patch = deathpoints.text(str(path), str(tree.home))
        command[1:3] = ["-c", f"{patch}\n{run}"]
        board.arm("other", 1)
        strace = ["strace", "-f", "--seccomp-bpf", "-y", "-o", str(log)]
        strace += ["-e", f"trace={','.join(CHANGES)}"]
        tree.launch([*strace, *command], b"status: local 0/10 remote 0/20")
        for number in (6, 14, 62):  # failures, one remote recipient, a deferral
            assert injector.put(str(tree.home), "library", number)
        until(lambda: not kills.waiting(tree))
        tree.wait_empty()
        [start] = [
            each for each in tree.family() if each.ppid() == tree.family()[0].pid
        ]
        os.kill(start.pid, signal.SIGTERM)
        tree.wait()
    found: Counter[str] = Counter()
    for (_, call), count in board.counts().items():
        found[call] += count
    seen: Counter[str] = Counter()
    places = "|".join(f"{tree.home}/{each}" for each in ("queue", "alias", "run/send"))
    for line in log.read_text().splitlines():
        name = re.match(rf"\d+ +(\w+)\(.*<({places})", line)
        if name:
            seen[CHANGES[name[1]]] += 1
    assert seen
    assert {call: found[call] for call in seen} == seen
