"""kill -9 of every kind of process, two hundred times, and the sum is right."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.torture import kills, world
from tests.tree.harness import Tree

KILLS = 200


def tell(*lines: str) -> None:
    """Show facts of this run where pytest shows what a test printed."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.serial
def test_two_hundred_kills_lose_nothing(tree: Tree, tmp_path: Path) -> None:
    seed = int(os.environ.get("QSEND_TEST_SEED", random.randrange(1 << 32)))
    tell(f"QSEND_TEST_SEED={seed}")
    found = kills.run(tree, KILLS, random.Random(seed), tmp_path)
    tell(f"kills: {dict(found.kills)}", *found.ledger.summary())
    found.ledger.check()
    ways = {number % len(world.ENTRANCES) for number in found.ledger.accepted}
    assert ways == set(range(len(world.ENTRANCES)))
    assert found.kills.total() >= KILLS
    assert all(found.kills[title] >= 5 for title in kills.TITLES), found.kills
    tell(f"left for the sweep: {kills.sweep(tree)}")
