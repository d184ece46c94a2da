"""FakeQueue and FakeSyncer: send's and clean's view of a queue on a fake disk.

They run the real Queue and Cleaner on a FakeDisk (tests/fakedisk.py), so that a
test can cut any run after every system call, or let the power fail there.

    queue = FakeQueue()
    messid = queue.inject(b"...", b"u0\\0p1\\0Fa@x\\0Tb@y\\0")
    start = len(queue.disk.ops)
    ...                                     # what is to be tested
    for count in range(start, len(queue.disk.ops) + 1):
        look_at(queue.after_kill(count))
        look_at(queue.after_power_cut(count))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from qsend.core.model import Channel, MessId
from qsend.formats import paths
from qsend.formats.control import Durability
from qsend.formats.layout import ENTRIES, Kind
from qsend.sysio.cleaner import Cleaner
from qsend.sysio.fsq import Queue
from tests.fakedisk import QUEUE, FakeDisk


class FakeQueue(Queue):
    """The queue as send sees it, on a FakeDisk; with what others do to it."""

    def __init__(self, disk: FakeDisk | None = None) -> None:
        """Open the queue on `disk`; without one, on a new disk with an empty queue."""
        self.disk = disk or empty_disk()
        super().__init__(QUEUE, self.disk)

    def cleaner(self, level: Durability = Durability.FULL) -> Cleaner:
        """A cleaner of this queue."""
        return Cleaner(QUEUE, level, self.disk)

    def after_kill(self, count: int | None = None) -> FakeQueue:
        """What a new process finds when all died after `count` ops."""
        return FakeQueue(self.disk.after_kill(count))

    def after_power_cut(
        self, count: int | None = None, kept: Collection[int] = ()
    ) -> FakeQueue:
        """What a new process finds after a power cut behind `count` ops."""
        return FakeQueue(self.disk.after_power_cut(count, kept))

    def inject(self, mess: bytes, envelope: bytes | None) -> MessId:
        """Put a message in, durably, as enqueue does; None stops before intd/N."""
        pid = self.dirs.fd("pid")
        fd = self.disk.open("new", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=pid)
        self.disk.write(fd, mess)
        self.disk.fsync(fd)
        messid = MessId(self.disk.fstat(fd).st_ino)
        self.disk.close(fd)
        self._link("pid", "new", "mess", messid)
        self.disk.unlink("new", dir_fd=pid)
        if envelope is not None:
            self.put("intd", messid, envelope)
            self._link("intd", str(messid), "todo", messid)
        self.disk.sync_all()
        return messid

    def put(self, name: str, messid: MessId, content: bytes) -> None:
        """Write one queue file, not synced, whatever may be there."""
        fd = self.disk.open(
            str(messid),
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
            0o600,
            dir_fd=self.dirs.of(name, messid),
        )
        self.disk.write(fd, content)
        self.disk.close(fd)

    def present(self, messid: MessId) -> frozenset[str]:
        """Which of mess, intd, todo, info, local, remote, bounce there are of N."""
        return present(self.disk.files(), messid)

    def _link(self, source: str, old: str, name: str, messid: MessId) -> None:
        self.disk.link(
            old,
            str(messid),
            src_dir_fd=self.dirs.fd(source),
            dst_dir_fd=self.dirs.of(name, messid),
            follow_symlinks=False,
        )


class FakeSyncer:
    """Syncer's commit and idle; a round happens when the test says so."""

    def __init__(self, disk: FakeDisk, level: Durability = Durability.FULL) -> None:
        """Sync on `disk` what `level` asks for."""
        self._disk = disk
        self._level = level
        self._waiting: list[_Commit] = []

    def commit(
        self,
        files: Sequence[int],
        dirs: Sequence[int],
        done: Callable[[OSError | None], None],
        *,
        lazy: bool = False,
    ) -> None:
        """Remember a request; see Syncer.commit."""
        self._waiting.append(_Commit(tuple(files), tuple(dirs), done, lazy))

    def run(self, *, lazy: bool = True) -> int:
        """One round over what waits, or over the eager ones; how many it was."""
        taken = [each for each in self._waiting if lazy or not each.lazy]
        self._waiting = [each for each in self._waiting if each not in taken]
        error: OSError | None = None
        try:
            self._sync(taken)
        except OSError as exc:
            error = exc
        for commit in taken:
            for fd in commit.files:
                self._disk.close(fd)
            commit.done(error)
        return len(taken)

    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def _sync(self, taken: Sequence[_Commit]) -> None:
        if self._level is Durability.NONE:
            return
        for commit in taken:
            dirs = commit.dirs if self._level is Durability.FULL else ()
            for fd in (*commit.files, *dirs):
                self._disk.fsync(fd)


@dataclass(frozen=True, slots=True, eq=False)
class _Commit:
    files: tuple[int, ...]
    dirs: tuple[int, ...]
    done: Callable[[OSError | None], None]
    lazy: bool


def empty_disk() -> FakeDisk:
    """A disk with an empty queue on it, all durable."""
    disk = FakeDisk()
    for entry in ENTRIES:
        for path in entry.paths():
            if entry.kind is Kind.DIR and path != ".":
                disk.mkdir(path, entry.mode)
    disk.sync_all()
    return disk


def present(files: Collection[str], messid: MessId) -> frozenset[str]:
    """The kinds of file that a message has among paths like "todo/1007"."""
    wanted = {
        "mess": paths.mess(messid),
        "intd": paths.intd(messid),
        "todo": paths.todo(messid),
        "info": paths.info(messid),
        "local": paths.recips(Channel.LOCAL, messid),
        "remote": paths.recips(Channel.REMOTE, messid),
        "bounce": paths.bounce(messid),
    }
    return frozenset(name for name, path in wanted.items() if path in files)
