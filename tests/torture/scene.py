"""What is recorded: a tree works through numbered messages while others come.

Run as `python -m tests.torture.scene PLACE SEED COUNT LEVEL KILLS`, under strace. Each
line written to the file PLACE/marks is a fact, at the moment of which it is true:

    yes NUMBER           the client has read that its message was taken
    took KIND-NUMBER     the SMTP server is about to say that it has it
    over                 the queue is empty
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading
from pathlib import Path

from qsend.sysio import clock
from tests.torture import injector, world
from tests.torture.kills import Killer, end, waiting
from tests.torture.ledger import Log, Pair
from tests.tree.harness import Tree, install

CLIENTS = ("library", "program", "smtp", "qmtp")
"""Entrances at work at the same time."""
WAIT_S = 120.0


def main(place: Path, seed: int, count: int, level: str, kills: int) -> None:
    """Queue and deliver `count` messages at a level of durability.

    `kills` processes are killed meanwhile, and the tree once.
    """
    marks = os.open(place / "marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def took(pair: Pair) -> None:
        os.write(marks, b"took %s-%d\n" % (pair[1].encode(), pair[0]))

    chance = random.Random(seed)
    with (
        Tree(install(place / "venv"), place / "home") as tree,
        world.listening(world.Sink(chance, took)) as port,
    ):
        ports = world.set_up(tree, port, level)
        os.write(marks, b"begin\n")
        killer = Killer(tree, chance)
        killer.start()
        threads = [
            threading.Thread(
                target=_client, args=(tree, world.how(each, ports), n, count, marks)
            )
            for n, each in enumerate(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        while killer.kills.total() < kills:
            killer.pause()
            killer.strike(most=2)
        if kills:
            killer.strike_start()
            killer.start()
        _work(tree, killer, threads)
        os.write(marks, b"over\n")
        end(tree, killer)


def _client(tree: Tree, how: str, first: int, count: int, marks: int) -> None:
    """One client, one message after another."""
    for number in range(first, count, len(CLIENTS)):
        if injector.put(str(tree.home), how, number):
            os.write(marks, b"yes %d\n" % number)


def _work(tree: Tree, killer: Killer, threads: list[threading.Thread]) -> None:
    """Have everything delivered; what was deferred is tried again when all are idle."""
    end_mono = clock.mono() + WAIT_S
    log = killer.logs[-1]
    while any(thread.is_alive() for thread in threads) or waiting(tree):
        assert clock.mono() < end_mono, tree.queue_files()
        log.wait_for(len(log.lines) + 100, 0.3)
        if _is_idle(log):
            tree.run("release", "all")
            tree.run("flush", "all")


def _is_idle(log: Log) -> bool:
    found = [line.text for line in log.lines if line.text.startswith(b"status: ")]
    return bool(found) and bool(re.match(rb"status: local 0/\d+ remote 0/", found[-1]))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
        int(sys.argv[5]),
    )
