"""Where ext4 makes the files of a queue: on a small ext4 in a file, mounted."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.sysio import queuemaker
from qsend.sysio.inodegroups import scatter
from qsend.sysio.queuewriter import QueueWriter
from tests.loopdisk import (
    EXT4,
    EXT4_WITHOUT_JOURNAL,
    LoopDisk,
    Make,
    loop_disks,
    needs_loop,
)
from tests.queues import own_accounts


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with loop_disks(tmp_path) as make:
        yield make


def flags(path: Path) -> str:
    done = subprocess.run(
        ["lsattr", "-d", str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[0]


def inodes_per_group(disk: LoopDisk) -> int:
    done = subprocess.run(
        ["dumpe2fs", "-h", str(disk.image)], capture_output=True, text=True, check=True
    )
    found = re.search(r"Inodes per group: *(\d+)", done.stdout)
    assert found is not None
    return int(found[1])


@needs_loop
@pytest.mark.root
def test_messages_of_a_queue_without_a_journal_lie_in_several_groups(
    make: Make,
) -> None:
    disk = make(EXT4_WITHOUT_JOURNAL)
    where = disk.where
    queuemaker.create(str(where), own_accounts())
    assert "T" in flags(where / "queue/mess")
    assert "T" not in flags(where / "queue/todo")
    writer = QueueWriter(str(where / "queue"))
    drafts = [writer.begin(b"x\n") for _ in range(300)]
    for draft in drafts:
        draft.discard()
    writer.close()
    size = inodes_per_group(disk)
    # A group for 64 in a row; two parts of mess/ may share one.
    assert len({(draft.messid - 1) // size for draft in drafts}) > 2


@needs_loop
@pytest.mark.root
def test_a_queue_with_a_journal_stays_together(make: Make) -> None:
    where = make(EXT4).where
    queuemaker.create(str(where), own_accounts())
    assert "T" not in flags(where / "queue/mess")


def test_other_file_systems_are_left_alone() -> None:
    fd = os.open("/dev/shm", os.O_RDONLY)
    try:
        scatter(fd)
    finally:
        os.close(fd)
