"""What a result was made on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import psutil

from bench import cpugroup
from bench.tree import ROOT, WHERE


def facts(durability: str) -> dict[str, str | float]:
    """The machine, its state, and the code."""
    return {
        "commit": commit(),
        "durability": durability,
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "kernel": platform.release(),
        "file_system": file_system(),
        "python": platform.python_version(),
        "postfix": _version("postfix"),
        "processor_time": cpugroup.kind(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """The commit of this checkout, with "-dirty" when it was changed."""
    return _output("git", "-C", str(ROOT), "describe", "--always", "--dirty")


def file_system() -> str:
    """The kind of the file system that queues are on."""
    best = ("", "unknown", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, where, kind, options, *_ = line.split()
        if WHERE.startswith(where.rstrip("/") or "/") and len(where) >= len(best[0]):
            best = (where, kind, options)
    return f"{best[1]} ({best[2]})"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    return _output("dpkg-query", "-W", "-f", "${Version}", package)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
