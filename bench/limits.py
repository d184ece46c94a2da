"""What the machine can do without any mail system: files made durable, SMTP alone."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import source
from bench.lab import Lab
from bench.letters import one_each
from bench.localcalls import LocalCalls
from bench.outcome import Outcome
from bench.sink import PORT, smtp_sink
from bench.tree import WHERE
from bench.workload import MACHINE, Variant

FILES = 1000
CONTENT = b"x" * 2048


@dataclass(frozen=True, slots=True)
class SyncedFiles:
    """Files of 2 KiB made, and synced with the directory, by so many threads."""

    threads: int

    def run(self, lab: Lab, _system: str, outcome: Outcome) -> None:
        """One round."""
        each = lab.count(FILES) // self.threads
        with tempfile.TemporaryDirectory(prefix="qsend-bench-", dir=WHERE) as top:
            os.sync()
            workers = [
                threading.Thread(target=_make, args=(Path(top, str(n)), each))
                for n in range(self.threads)
            ]
            begin = time.monotonic()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            outcome.seconds = time.monotonic() - begin
        outcome.units = each * self.threads


def _make(directory: Path, count: int) -> None:
    directory.mkdir()
    dir_fd = os.open(directory, os.O_RDONLY)
    for number in range(count):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        fd = os.open(str(number), flags, 0o600, dir_fd=dir_fd)
        os.write(fd, CONTENT)
        os.fsync(fd)
        os.close(fd)
        os.fsync(dir_fd)
    os.close(dir_fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transactions:
    """SMTP from a source to a sink; `is_own` says whether both are the suite's."""

    keep: bool
    is_own: bool

    def run(self, lab: Lab, _system: str, outcome: Outcome) -> None:
        """One round with ten sessions."""
        outcome.units = lab.count(5000)
        if self.is_own:
            letters = one_each(outcome.units, b"m%d@sink.example")
            outcome.seconds = source.send(letters, PORT, keep=self.keep).seconds
            lab.sink.take()
            return
        with smtp_sink() as port:
            begin = time.monotonic()
            source.smtp_source(outcome.units, "m@sink.example", port, keep=self.keep)
            outcome.seconds = time.monotonic() - begin


def variants(*, full: bool) -> list[Variant]:
    """The limits."""
    del full
    runs: dict[str, Callable[[Lab, str, Outcome], None]] = {
        f"synced file creations, {threads} threads": SyncedFiles(threads).run
        for threads in (1, 8)
    }
    for how, keep in (("kept", True), ("new", False)):
        for who, is_own in (("smtp-source to smtp-sink", False), ("our own", True)):
            title = f"SMTP transactions, {how} connections, {who}"
            runs[title] = Transactions(keep=keep, is_own=is_own).run
    runs["file calls of local deliveries"] = LocalCalls().run
    return [
        Variant("limits", title, run, (MACHINE,), "transactions")
        for title, run in runs.items()
    ]
