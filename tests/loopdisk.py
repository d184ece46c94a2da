"""Small file systems in files, mounted; and what a power cut leaves of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

EXT4, EXT4_WITHOUT_JOURNAL, XFS = "ext4", "ext4 without a journal", "xfs"
_EXT4 = ("mke2fs", "-q", "-F", "-t", "ext4", "-g", "8192", "-b", "1024", "-O")
_MAKE = {
    EXT4: (*_EXT4, "has_journal,^flex_bg"),
    EXT4_WITHOUT_JOURNAL: (*_EXT4, "^has_journal,^flex_bg"),
    XFS: ("mkfs.xfs", "-q"),
}
"""ext4 has block groups of 8 MiB."""
_BYTES = 320 << 20
"""mkfs.xfs makes none that are smaller than 300 MiB; most of it is a hole."""

needs_loop = pytest.mark.skipif(
    not os.path.exists("/dev/loop-control"), reason="no loop devices here"
)


@dataclass(frozen=True)
class LoopDisk:
    """A mounted file system, and the file that it is in."""

    kind: str
    image: Path
    where: Path

    @contextmanager
    def after_power_cut(self) -> Iterator[Path]:
        """Where what would be found if the power failed now is mounted, mended.

        What the file system keeps in memory is lost. Everything else is taken to
        be on the disk, whether or not the disk was told to flush it.
        """
        copy = self.image.with_suffix(".copy")
        shutil.copyfile(self.image, copy)
        options = "loop"
        if self.kind == XFS:
            options += ",nouuid"  # it is mounted already, so to speak
        else:
            command = ["e2fsck", "-fy", str(copy)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            # 1: it has mended something.
            assert done.returncode <= 1, done.stdout
        with _mounted(copy, self.where.with_suffix(".after"), options) as where:
            yield where


Make = Callable[[str], LoopDisk]


@contextmanager
def loop_disks(tmp_path: Path) -> Iterator[Make]:
    """Gives a function that mounts a new file system of a kind."""
    with ExitStack() as stack:

        def make(kind: str) -> LoopDisk:
            number = len(list(tmp_path.glob("*.disk")))
            image = tmp_path / f"{number}.disk"
            with image.open("wb") as file:
                file.truncate(_BYTES)
            subprocess.run([*_MAKE[kind], str(image)], check=True)
            mounted = _mounted(image, tmp_path / f"m{number}", "loop")
            return LoopDisk(kind, image, stack.enter_context(mounted))

        yield make


@contextmanager
def _mounted(image: Path, where: Path, options: str) -> Iterator[Path]:
    where.mkdir()
    subprocess.run(["mount", "-o", options, str(image), str(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)
