"""kill -9 at system calls of a message's life: one of 48 parts of them."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.torture import deaths
from tests.tree.conftest import installation, tree
from tests.tree.harness import Tree

__all__ = ["installation", "tree"]
PART, PARTS = 1, 48  # local children and send; `make torture` does all


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.serial
def test_death_at_any_call_loses_nothing(tree: Tree, tmp_path: Path) -> None:
    seed = int(os.environ.get("QSEND_TEST_SEED", random.randrange(1 << 32)))
    dead, ledger = deaths.run(tree, random.Random(seed), tmp_path, PART, PARTS)
    sys.stdout.write(f"QSEND_TEST_SEED={seed}\n{dead}\n")
    ledger.check()
    assert dead.total() > 0
