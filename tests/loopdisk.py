"""Small ext4 file systems in files, mounted; and what a power cut leaves of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_loop = pytest.mark.skipif(
    not os.path.exists("/dev/loop-control"), reason="no loop devices here"
)


@dataclass(frozen=True)
class LoopDisk:
    """A mounted ext4 of 32 block groups, and the file that it is in."""

    image: Path
    where: Path

    def after_power_cut(self, into: Path) -> None:
        """Put there what would be found if the power failed now, after fsck.

        What the file system keeps in memory is lost. Everything else is taken to
        be on the disk, whether or not the disk was told to flush it.
        """
        copy = into.with_name(f"{into.name}.image")
        shutil.copyfile(self.image, copy)
        # 1: it has mended something.
        done = subprocess.run(
            ["e2fsck", "-fy", str(copy)], capture_output=True, text=True, check=False
        )
        assert done.returncode <= 1, done.stdout
        into.mkdir()
        subprocess.run(
            ["debugfs", "-R", f"rdump / {into}", str(copy)],
            capture_output=True,
            check=True,
        )
        copy.unlink()


Make = Callable[..., LoopDisk]


@contextmanager
def loop_disks(tmp_path: Path) -> Iterator[Make]:
    """Gives a function that mounts an ext4 with or without a journal."""
    mounted: list[Path] = []

    def make(*, journal: bool, size: int = 256 << 20) -> LoopDisk:
        image, where = tmp_path / f"disk{len(mounted)}", tmp_path / f"m{len(mounted)}"
        with image.open("wb") as file:
            file.truncate(size)
        features = f"{'' if journal else '^'}has_journal,^flex_bg"
        command = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", features, "-g", "8192"]
        subprocess.run([*command, "-b", "1024", str(image)], check=True)
        where.mkdir()
        subprocess.run(["mount", "-o", "loop", str(image), str(where)], check=True)
        mounted.append(where)
        return LoopDisk(image, where)

    try:
        yield make
    finally:
        for where in mounted:
            subprocess.run(["umount", str(where)], check=True)
