"""What lies in a maildir, oldest first, for programs that empty one.

Works in the current directory, which is the maildir.
Source: maildir.c maildir_clean(), maildir_scan(); maildir(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from qsend.core.errors import TempFail

STALE_S = 129600
"""A file in tmp that nobody has read for 36 hours is given up (maildir(5))."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One message; the older one is less. `path` is as `new/NAME`."""

    mtime: int
    path: str


def clean(now: int) -> None:
    """Remove what was left in tmp for too long."""
    with contextlib.suppress(OSError), os.scandir("tmp") as found:
        for each in found:
            if each.name[:1] != "." and each.stat().st_atime + STALE_S < now:
                os.unlink(each.path)


def scan(now: int) -> list[Entry]:
    """Messages in new and cur from before this second: one that arrives now might
    have to go before them.

    Raises: TempFail when a directory cannot be read.
    """
    return sorted(entry for name in ("new", "cur") for entry in _scan(name, now))


def _scan(name: str, now: int) -> Iterator[Entry]:
    try:
        with os.scandir(name) as found:
            for each in found:
                if each.name[:1] == ".":
                    continue
                with contextlib.suppress(FileNotFoundError):
                    mtime = int(each.stat().st_mtime)
                    if mtime < now:
                        yield Entry(mtime, each.path)
    except OSError as exc:
        raise TempFail(f"unable to scan $MAILDIR/{name}: {exc.strerror}") from exc
