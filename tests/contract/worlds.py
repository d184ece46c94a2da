"""The two worlds that the contract suites run in: a real disk and a fake one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qsend.core.model import MessId
from qsend.formats import paths
from qsend.sysio.cleaner import Cleaner
from qsend.sysio.filecalls import FileCalls
from qsend.sysio.fsq import Queue
from tests.fakes import FakeQueue, present
from tests.queues import inject


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A queue, the calls under it, and what others do to it."""

    queue: Queue
    cleaner: Cleaner
    calls: FileCalls
    inject: Callable[[bytes, bytes | None], MessId]
    put: Callable[[str, MessId, bytes], None]
    files: Callable[[], dict[str, bytes]]
    remove: Callable[[str], None]

    def done(self, fd: int) -> None:
        """What the syncer does with a returned descriptor."""
        self.calls.fsync(fd)
        self.calls.close(fd)

    def present(self, messid: MessId) -> frozenset[str]:
        return present(self.files(), messid)


def real_world(queue_dir: Path) -> World:
    queue = Queue(str(queue_dir))

    def put(name: str, messid: MessId, content: bytes) -> None:
        inside = f"{messid % 23}/" if name in paths.SPLIT_DIRS else ""
        (queue_dir / name / f"{inside}{messid}").write_bytes(content)

    def files() -> dict[str, bytes]:
        return {
            str(path.relative_to(queue_dir)): path.read_bytes()
            for path in queue_dir.rglob("*")
            if path.is_file() and path.parent.name != "lock"
        }

    return World(
        queue=queue,
        cleaner=Cleaner(str(queue_dir)),
        calls=os,
        inject=lambda mess, envelope: inject(queue_dir, mess, envelope),
        put=put,
        files=files,
        remove=lambda path: (queue_dir / path).unlink(),
    )


def fake_world() -> World:
    queue = FakeQueue()

    def remove(path: str) -> None:
        name, _, file = path.rpartition("/")
        queue.disk.unlink(file, dir_fd=queue.dirs.fd(name))

    return World(
        queue=queue,
        cleaner=queue.cleaner(),
        calls=queue.disk,
        inject=queue.inject,
        put=queue.put,
        files=queue.disk.files,
        remove=remove,
    )
