"""Power cuts of a recorded tree: nothing is lost, and what would be is seen."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture import powercut, powerloss
from tests.torture.recorddisk import RecordDisk
from tests.tree.harness import Installation

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.serial]
CUTS = 400
BOOTS = 4
MESSAGES = 26
SEED = int(os.environ.get("QSEND_TEST_SEED", random.randrange(1 << 32)))


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every account of the machine may enter."""
    path = Path(tempfile.mkdtemp(prefix="qsend-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def disk(place: Path) -> RecordDisk:
    """A tree at level full of which four processes, then all, were killed."""
    sys.stdout.write(f"QSEND_TEST_SEED={SEED}\n")
    return powerloss.make(place, SEED, MESSAGES, "full", kills=4)


def test_no_cut_loses_mail_or_needs_a_human(disk: RecordDisk) -> None:
    chance = random.Random(SEED)
    repeated = 0
    for number in range(CUTS):
        cut = powercut.choose(disk, chance)
        found = powercut.try_out(disk, cut, fails=bool(number % 2))
        assert found.is_good, (cut, found.lost, found.faults)
        repeated += len(found.repeated)
    assert repeated > 0  # or no cut has met a delivery under way


def test_a_tree_started_on_what_a_cut_left_ends_with_all_mail(
    disk: RecordDisk, place: Path
) -> None:
    there = Installation(max(place.glob("run*/venv")))
    chance = random.Random(SEED)
    assert powerloss.sample(there, place / "home", disk, chance, BOOTS) == []


@pytest.mark.parametrize(
    "where", ["mess/", "mess", "todo/", "todo", "info/", "bounce", "alias"]
)
def test_one_sync_that_is_left_out_is_missed(disk: RecordDisk, where: str) -> None:
    """Of a file below a directory ("mess/"), or of a directory."""
    positions = [
        position
        for name, found in powercut.syncs(disk).items()
        for position in found
        if name.split("/")[0] == where.rstrip("/")
        and (where == "alias" or name.endswith("/") == where.endswith("/"))
    ]
    assert positions
    assert any(powercut.is_needed(disk, position) for position in positions)


def test_losses_of_level_qmail_are_seen(place: Path) -> None:
    """It syncs no directory: what it acknowledged has no name yet."""
    there = place / "qmail"
    there.mkdir(mode=0o755)
    run = powerloss.make(there, SEED, 8, "qmail", kills=0)
    last = powercut.Cut(len(run.ops), frozenset())
    assert powercut.try_out(run, last, is_alive=False).lost
