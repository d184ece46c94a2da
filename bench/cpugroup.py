"""Processor time of a whole tree, to the nanosecond, by a control group of its own.

/proc tells hundredths of a second for each process, rounded down: with a hundred
short-lived processes that is a second too few. What ended is in the group's sum.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ENTER = 'echo 0 >"$0/cgroup.procs" && exec "$@"'
_REMOVE_S = 5.0


@dataclass(frozen=True, slots=True)
class CpuGroup:
    """An existing group."""

    path: Path

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command inside."""
        return ["/bin/sh", "-c", _ENTER, str(self.path), *command]

    def cpu_s(self) -> float:
        """Seconds that everything inside has used."""
        usage = self.path / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text()) / 1e9
        for line in (self.path / "cpu.stat").read_text().splitlines():
            name, value = line.split()
            if name == "usage_usec":
                return int(value) / 1e6
        raise OSError(f"no usage in {self.path}/cpu.stat")

    def remove(self) -> None:
        """Delete it; what ran inside may need a moment to be gone."""
        end = time.monotonic() + _REMOVE_S
        while self.path.exists() and time.monotonic() < end:
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.02)


def make(name: str) -> CpuGroup | None:
    """A new group; None when the machine lends none."""
    for parent in hierarchies():
        path = parent / name
        try:
            path.mkdir()
        except OSError:
            continue
        group = CpuGroup(path)
        try:
            group.cpu_s()
        except OSError:
            path.rmdir()
            continue
        return group
    return None


def hierarchies() -> list[Path]:
    """Where groups that count may be made: cgroup v1 cpuacct, then cgroup v2."""
    found: list[tuple[int, Path]] = []
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, where, kind, options, *_ = line.split()
        if kind == "cgroup" and "cpuacct" in options.split(","):
            found.append((1, Path(where)))
        elif kind == "cgroup2":
            found.append((2, Path(where)))
    return [path for _, path in sorted(found) if os.access(path, os.W_OK)]


def kind() -> str:
    """How processor time is counted on this machine, for the report."""
    group = make(f"qsend-bench-{os.getpid()}-probe")
    if group is None:
        return "/proc, hundredths of a second"
    group.remove()
    return "control group"
