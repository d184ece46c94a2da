"""The file calls of a local drain, made in the best order by nobody but themselves.

Two processes deliver and one removes, each in batches, as qsend's local and clean
do: that, and the least that Python takes for it, is what the machine can do of W2
at the most. No scheduling, no lines between processes, no log.
"""

from __future__ import annotations

import os
import resource
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.lab import Lab
from bench.outcome import Outcome
from bench.tree import WHERE, far_apart
from qsend.sysio.filesystem import syncs_links_with_names
from qsend.sysio.spread import Threads
from qsend.sysio.syncer import syncfs

MESSAGES = 2000
BATCH = 25
DELIVERERS = 2
CONTENT = b"x" * 2048
ENVELOPE = b"u1\0p1\0Fbench@sender.example\0Tu0@bench.example\0"
_SPAN = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class LocalCalls:
    """Messages read, written to a Maildir, durable; then removed from the queue."""

    def run(self, lab: Lab, _system: str, outcome: Outcome) -> None:
        """One round."""
        with tempfile.TemporaryDirectory(prefix="qsend-bench-", dir=WHERE) as top:
            self._run(Path(top), lab.count(MESSAGES), outcome)

    def _run(self, top: Path, count: int, outcome: Outcome) -> None:
        place = _Place(top)
        place.fill(count)
        os.sync()
        done, told = os.pipe()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.monotonic()
        pids = [
            _fork(partial(place.deliver, at, count, told)) for at in range(DELIVERERS)
        ]
        pids.append(_fork(partial(place.remove, count, done)))
        for pid in pids:
            _, status = os.waitpid(pid, 0)
            if status:
                raise RuntimeError(f"status {status}")
        outcome.seconds = time.monotonic() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        outcome.cpu_s = after.ru_utime + after.ru_stime
        outcome.cpu_s -= before.ru_utime + before.ru_stime
        outcome.units = count
        os.close(done)
        os.close(told)
        left = [len(os.listdir(top / name)) for name in ("new", "intd", "mess")]
        if left != [count, 0, 0]:
            raise RuntimeError(f"{left} of {count}")


def _fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


class _Place:
    """A queue's directories and a Maildir's, each far from the others."""

    def __init__(self, top: Path) -> None:
        self._fds: dict[str, int] = {}
        self._may_be_unnamed = syncs_links_with_names(os.stat(top).st_dev)
        far_apart(top)
        for name in ("mess", "intd", "todo", "new", "tmp"):
            (top / name).mkdir()
            self._fds[name] = os.open(top / name, os.O_RDONLY)

    def fill(self, count: int) -> None:
        """The queue, with so many messages."""
        for number in range(count):
            name = str(number)
            for directory, content in (("mess", CONTENT), ("intd", ENVELOPE)):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                fd = os.open(name, flags, 0o644, dir_fd=self._fds[directory])
                os.write(fd, content)
                os.close(fd)
            intd, todo = self._fds["intd"], self._fds["todo"]
            os.link(name, name, src_dir_fd=intd, dst_dir_fd=todo)

    def deliver(self, turn: int, count: int, told: int) -> None:
        """Every DELIVERERS-th batch; tell of each when it is durable."""
        for first in range(turn * BATCH, count, DELIVERERS * BATCH):
            span = range(first, min(first + BATCH, count))
            fds = [self._write(str(number)) for number in span]
            syncfs(self._fds["new"])
            for number, fd in zip(span, fds, strict=True):
                self._publish(str(number), fd)
                os.close(fd)
            os.fsync(self._fds["new"])
            os.write(told, _SPAN.pack(span.start, span.stop))

    def _write(self, name: str) -> int:
        source = os.open(name, os.O_RDONLY, dir_fd=self._fds["mess"])
        content = os.read(source, 65536)
        os.close(source)
        flags, path = os.O_WRONLY | os.O_CREAT | os.O_EXCL, name
        if self._may_be_unnamed:
            flags, path = os.O_WRONLY | os.O_TMPFILE, "."
        fd = os.open(path, flags, 0o600, dir_fd=self._fds["tmp"])
        os.write(fd, content)
        return fd

    def _publish(self, name: str, fd: int) -> None:
        tmp, new = self._fds["tmp"], self._fds["new"]
        if self._may_be_unnamed:
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=new)
        else:
            os.link(name, name, src_dir_fd=tmp, dst_dir_fd=new)
            os.unlink(name, dir_fd=tmp)

    def remove(self, count: int, done: int) -> None:
        """What was told of, in threads; what makes it forgotten first, and durably."""
        threads = Threads()
        while count:
            read = os.read(done, _SPAN.size * 64)
            names = [
                str(number)
                for first, end in _SPAN.iter_unpack(read)
                for number in range(first, end)
            ]
            threads(self._forget, names)
            os.fsync(self._fds["intd"])
            os.fsync(self._fds["todo"])
            threads(lambda name: os.unlink(name, dir_fd=self._fds["mess"]), names)
            count -= len(names)
        threads.close()

    def _forget(self, name: str) -> None:
        os.unlink(name, dir_fd=self._fds["intd"])
        os.unlink(name, dir_fd=self._fds["todo"])
