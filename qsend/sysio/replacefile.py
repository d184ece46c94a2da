"""Replacing a file at once and for good: whoever reads sees the old or the new one.

Source: qmail-newu.c, qmail-newmrh.c (cdb.tmp, renamed); rename(2), fsync(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import BinaryIO


def replace_file(
    path: str, new: str, write: Callable[[BinaryIO], None], mode: int = 0o644
) -> None:
    """Replace `path` by what `write` puts into an empty file called `new`.

    Both names are in one directory. Two callers in one directory take turns. The
    file belongs to the caller, has `mode`, and is durable, name included, on return.
    Raises: what `write` raises; OSError. `path` is what it was then, and `new` gone.
    """
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        try:
            _write(new, write, mode)
            os.rename(new, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            raise
        os.fsync(directory)
    finally:
        os.close(directory)


def write_file(path: str, new: str, content: bytes) -> None:
    """Replace `path` by `content`, readable by all; otherwise as replace_file."""

    def write(file: BinaryIO) -> None:
        file.write(content)

    replace_file(path, new, write)


def _write(new: str, write: Callable[[BinaryIO], None], mode: int) -> None:
    # What was left there may be a second name of another file: never write to it.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w+b") as file:
        write(file)
        file.flush()
        os.fchmod(fd, mode)
        os.fsync(fd)
