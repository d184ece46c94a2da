"""Deleting what has a million files, by several processes at once.

An unlink waits for the disk on file systems that tell it of free blocks.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from tests.longqueue import in_processes

DELETERS = 8
"""Microseconds for the three files of a message, by so many processes (ext4 without a
journal, mounted with discard): 1: 262, 2: 141, 4: 109, 8: 73."""


def delete(path: Path) -> None:
    """Delete a directory; the directories of its third level share the work."""
    low = [each for each in path.glob("*/*/*") if each.is_dir()]
    in_processes([partial(_delete_all, low[at::DELETERS]) for at in range(DELETERS)])
    shutil.rmtree(path)


def _delete_all(paths: Iterable[Path]) -> int:
    for path in paths:
        shutil.rmtree(path)
    return 0
