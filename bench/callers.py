"""Callers that run programs again and again, and what the programs cost.

    python -m bench.callers CALLERS < jobs.json

A job is [command, standard input, what descriptor 1 can read]. Prints as JSON how long
all took, and processor milliseconds of a program, beside those of an empty Python.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import tempfile
import threading
import time
from typing import Any

EMPTY = ["/usr/bin/python3", "-I", "-S", "-c", ""]
EMPTY_RUNS = 20


class Callers:
    """Threads that take jobs from a queue."""

    def __init__(self, jobs: list[Any]) -> None:
        self.cpu_s = 0.0
        self.failed = 0
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for job in jobs:
            self._jobs.put(job)
        self._lock = threading.Lock()

    def run(self, callers: int) -> float:
        """All jobs; the seconds that they took."""
        threads = [threading.Thread(target=self._work) for _ in range(callers)]
        begin = time.monotonic()
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return time.monotonic() - begin

    def _work(self) -> None:
        while True:
            try:
                command, given, envelope = self._jobs.get_nowait()
            except queue.Empty:
                return
            status, cpu_s = run(command, given.encode(), envelope.encode())
            with self._lock:
                self.cpu_s += cpu_s
                self.failed += status != 0


def run(command: list[str], given: bytes, envelope: bytes) -> tuple[int, float]:
    """One program to its end: wait status, and processor seconds."""
    with (
        tempfile.TemporaryFile(dir="/dev/shm") as first,
        tempfile.TemporaryFile(dir="/dev/shm") as second,
    ):
        for file, content in ((first, given), (second, envelope)):
            file.write(content)
            file.flush()
            file.seek(0)
        actions = [
            (os.POSIX_SPAWN_DUP2, first.fileno(), 0),
            (os.POSIX_SPAWN_DUP2, second.fileno(), 1),
        ]
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        _pid, status, usage = os.wait4(pid, 0)
    return status, usage.ru_utime + usage.ru_stime


def main() -> int:
    """Run the jobs of standard input; 1 when one failed."""
    jobs = json.load(sys.stdin)
    count = int(sys.argv[1])
    # By as many at once: programs that share a processor's caches all cost more.
    empty = Callers([[EMPTY, "", ""]] * (EMPTY_RUNS * count))
    empty.run(count)
    empty_s = empty.cpu_s / (EMPTY_RUNS * count)
    callers = Callers(jobs)
    seconds = callers.run(count)
    cpu_s = callers.cpu_s / len(jobs)
    figures = {
        "seconds": seconds,
        "program cpu ms": cpu_s * 1000,
        "empty python cpu ms": empty_s * 1000,
        "program cpu / empty python cpu": cpu_s / empty_s,
    }
    print(json.dumps(figures))
    if callers.failed:
        print(f"{callers.failed} programs failed", file=sys.stderr)
    return int(callers.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
