"""Numbered messages through a tree to which something happens: all of them arrive."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

import psutil

from tests.tree.harness import Tree, until


@dataclass
class Bench:
    """A tree that takes numbered messages, and what it has accepted.

    box has a Maildir, later one that opens for `recover`, nobody-here none; it all
    arrives in one.
    """

    tree: Tree
    accepted: set[str] = field(default_factory=set)
    seen: int = 0

    def __post_init__(self) -> None:
        self.box = self.tree.maildir()
        for name in ("box", "me"):
            self.tree.alias(name, "./Maildir/\n")
        self.tree.alias("later", "|test -e ready || exit 111\n./Maildir/\n")

    def inject(self, body: bytes = b"body") -> int:
        """Three messages; how many were not taken, for now."""
        refused = 0
        for name in ("box", "later", "nobody-here"):
            self.seen += 1
            number = f"n{self.seen}n"
            done = self.tree.program(
                "qmail-inject",
                *("-a", "-f", "me@here.example", "--", f"{name}@here.example"),
                stdin=f"Subject: {number}\n\n".encode() + body + b"\n",
            )
            if done.returncode:
                assert done.returncode == 111, done.stderr
                refused += 1
            else:
                self.accepted.add(number)
        return refused

    def arrived(self) -> set[str]:
        found: set[str] = set()
        for path in (self.box / "new").iterdir():
            found |= set(re.findall(r"n\d+n", path.read_text()))
        return found


def cpu_s(tree: Tree) -> float:
    total = 0.0
    for process in tree.family():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def drain(tree: Tree, wait_s: float) -> None:
    """Read the log for that long."""
    deadline = time.monotonic() + wait_s  # noqa: TID251
    while (left_s := deadline - time.monotonic()) > 0:  # noqa: TID251
        tree.watch(left_s)


def recover(bench: Bench) -> None:
    """Everything accepted arrives, and the queue is empty."""
    ready = bench.tree.home / "alias/ready"
    ready.touch()

    def is_over() -> bool:
        bench.tree.watch(0)
        if bench.accepted <= bench.arrived():
            return True
        bench.tree.run("flush", "all", check=False)
        drain(bench.tree, 0.1)
        return False

    try:
        until(is_over)
    except AssertionError as exc:
        missing = bench.accepted - bench.arrived()
        text = bench.tree.log[-20_000:].decode(errors="replace")
        raise AssertionError(f"{missing} did not arrive:\n{text}") from exc
    ready.unlink()
