"""What a tree of processes costs: processor time and memory, read from /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import psutil

from bench.errors import BenchError

_TICK = os.sysconf("SC_CLK_TCK")
INTERVAL_S = 0.25
"""Between two looks at memory: what lives shorter may be missed."""


def family(pid: int) -> list[int]:
    """The process and everything below it; empty when it has ended."""
    try:
        top = psutil.Process(pid)
        return [pid, *(each.pid for each in top.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def end(pids: Iterable[int], timeout_s: float) -> None:
    """Kill these, and wait until they are gone: till then their ports are taken.

    One that waits for the disk takes its time. Raises: BenchError when late.
    """
    there = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            process.kill()
        except psutil.NoSuchProcess:
            continue
        there.append(process)
    _gone, alive = psutil.wait_procs(there, timeout_s)
    if alive:
        raise BenchError(f"{alive} live {timeout_s} s after they were killed")


def cpu_s(pids: Iterable[int]) -> float:
    """Processor seconds of these trees, those of children that ended included."""
    return sum(_cpu_s(each) for pid in pids for each in family(pid))


def _cpu_s(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0.0
    fields = stat.rpartition(b")")[2].split()
    # utime, stime, cutime, cstime: proc(5) counts from 1, and two fields are cut off.
    return sum(map(int, fields[11:15])) / _TICK


def memory_mib(pids: Iterable[int]) -> float:
    """Proportional set size of these trees: shared pages are counted once."""
    return sum(pss_mib(each) for pid in pids for each in family(pid))


def pss_mib(pid: int) -> float:
    """The same of one process; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


class MemoryWatch:
    """The greatest memory of some trees while the `with` block runs."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.peak_mib = 0.0
        self._pids = list(pids)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_mib = max(self.peak_mib, memory_mib(self._pids))
            if self._ended.wait(INTERVAL_S):
                return
