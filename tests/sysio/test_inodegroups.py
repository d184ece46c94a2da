"""Where ext4 makes the files of a queue: on a small ext4 in a file, mounted."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qsend.sysio import queuemaker
from qsend.sysio.inodegroups import is_without_journal, scatter
from qsend.sysio.queuewriter import QueueWriter
from tests.queues import own_accounts

Make = Callable[[str], Path]
needs_loop = pytest.mark.skipif(
    not os.path.exists("/dev/loop-control"), reason="no loop devices here"
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Mounts an ext4 of 32 block groups with or without a journal."""
    mounted: list[Path] = []

    def build(journal: str) -> Path:
        disk, where = tmp_path / f"disk{len(mounted)}", tmp_path / f"m{len(mounted)}"
        with disk.open("wb") as file:
            file.truncate(256 << 20)
        features = f"{journal}has_journal,^flex_bg"
        command = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", features, "-g", "8192"]
        subprocess.run([*command, "-b", "1024", str(disk)], check=True)
        where.mkdir()
        subprocess.run(["mount", "-o", "loop", str(disk), str(where)], check=True)
        mounted.append(where)
        return where

    yield build
    for where in mounted:
        subprocess.run(["umount", str(where)], check=True)


def flags(path: Path) -> str:
    done = subprocess.run(
        ["lsattr", "-d", str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[0]


def inodes_per_group(where: Path) -> int:
    disk = where.parent / where.name.replace("m", "disk")
    done = subprocess.run(
        ["dumpe2fs", "-h", str(disk)], capture_output=True, text=True, check=True
    )
    found = re.search(r"Inodes per group: *(\d+)", done.stdout)
    assert found is not None
    return int(found[1])


@needs_loop
@pytest.mark.root
def test_messages_of_a_queue_without_a_journal_lie_in_several_groups(
    make: Make,
) -> None:
    where = make("^")
    assert is_without_journal(os.stat(where).st_dev)
    queuemaker.create(str(where), own_accounts())
    assert "T" in flags(where / "queue/mess")
    assert "T" not in flags(where / "queue/todo")
    writer = QueueWriter(str(where / "queue"))
    drafts = [writer.begin(b"x\n") for _ in range(300)]
    for draft in drafts:
        draft.discard()
    writer.close()
    size = inodes_per_group(where)
    # A group for 64 in a row; two parts of mess/ may share one.
    assert len({(draft.messid - 1) // size for draft in drafts}) > 2


@needs_loop
@pytest.mark.root
def test_a_queue_with_a_journal_stays_together(make: Make) -> None:
    where = make("")
    assert not is_without_journal(os.stat(where).st_dev)
    queuemaker.create(str(where), own_accounts())
    assert "T" not in flags(where / "queue/mess")


def test_other_file_systems_are_left_alone() -> None:
    fd = os.open("/dev/shm", os.O_RDONLY)
    try:
        scatter(fd)
    finally:
        os.close(fd)
