"""Work that says what must be durable before it goes on, and who sees to that.

Such work is a generator: it yields a descriptor, and is resumed when what was
written to that file or directory is durable; an OSError is thrown in when it could
not be made so. What is yielded by many at once is synced at once (SyncSet); one
alone is run to its end by `finish`.
Source: fsync(2), syncfs(2).
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Collection, Generator
from typing import TypeVar

from qsend.sysio.syncer import SYNCFS_FROM, syncfs

BLOCKS = -1
"""Yielded instead of a descriptor: what follows may take long, so it should go on
where that holds up nobody else."""

_Result = TypeVar("_Result")
Steps = Generator[int, None, _Result]
"""Yields descriptors, or BLOCKS; returns its result."""

_DEVICES_MAX = 16
"""File systems that one SyncSet keeps a descriptor for."""


def finish(steps: Steps[_Result]) -> _Result:
    """Run the rest of `steps` here and now; what it returns.

    Raises: whatever `steps` raises.
    """
    try:
        fd = next(steps)
    except StopIteration as end:
        result: _Result = end.value
        return result
    return finish_from(steps, fd)


def finish_from(steps: Steps[_Result], fd: int) -> _Result:
    """The same for `steps` that have already yielded `fd`."""
    try:
        while True:
            try:
                if fd != BLOCKS:
                    os.fsync(fd)
            except OSError as exc:
                fd = steps.throw(exc)
            else:
                fd = next(steps)
    except StopIteration as end:
        result: _Result = end.value
        return result


class SyncSet:
    """Makes several files and directories durable at once; for one thread."""

    def __init__(self) -> None:
        self._devices: dict[int, int] = {}

    def sync(self, fds: Collection[int]) -> dict[int, OSError]:
        """Return when all that could be made durable is: what went wrong, by fd.

        Those of one file system share their fate: its one syncfs may have failed.
        """
        failed: dict[int, OSError] = {}
        groups: dict[int, dict[int, int]] = defaultdict(dict)
        members: dict[int, list[int]] = defaultdict(list)
        for fd in fds:
            try:
                status = os.fstat(fd)
            except OSError as exc:
                failed[fd] = exc
                continue
            groups[status.st_dev][status.st_ino] = fd
            members[status.st_dev].append(fd)
        for device, files in groups.items():
            try:
                self._sync(device, files.values())
            except OSError as exc:
                error = OSError(exc.errno or errno.EIO, exc.strerror)
                failed.update(dict.fromkeys(members[device], error))
        return failed

    def close(self) -> None:
        """Give back what is kept open."""
        for fd in self._devices.values():
            os.close(fd)
        self._devices.clear()

    def _sync(self, device: int, fds: Collection[int]) -> None:
        known = self._devices.get(device)
        if known is not None and len(fds) >= SYNCFS_FROM:
            syncfs(known)
            return
        if known is None and len(self._devices) < _DEVICES_MAX:
            # syncfs reports errors since its descriptor was opened: it must have
            # been opened before what it is to cover was written.
            path = f"/proc/self/fd/{next(iter(fds))}"
            self._devices[device] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        for fd in fds:
            os.fsync(fd)
