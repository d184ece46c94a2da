"""How fast a preloaded queue drains: to an SMTP sink, and to one Maildir.

    python -m bench.drain [--messages 2000] [--runs 3] [--durability full]

Prints messages per second and processor seconds per 1000 messages of the whole
process tree, median and spread over the runs, with durability level and commit.
The clock runs from the start of `qsend start` to the last message's end.
"""

from __future__ import annotations

import argparse
import mailbox
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.tree import ROOT, WHERE, Home, Run, smtp_sink

SIZE = 2048


def remote(count: int, durability: str) -> Run:
    """Drain to smtp-sink over loopback; one destination."""
    with smtp_sink() as port:
        home = Home(
            {
                "durability": durability,
                "concurrencyremote": "50",
                "smtproutes": f":127.0.0.1:{port}",
            }
        )
        home.preload(count, "sink%d@sink.example", SIZE)
        run = home.drain(count)
        home.remove()
        return run


def local(count: int, durability: str) -> Run:
    """Drain to one Maildir of the account `alias`; every message must be there."""
    home = Home(
        {
            "durability": durability,
            "concurrencylocal": "50",
            "concurrencyperuser": "50",
        }
    )
    maildir = home.path / "alias" / "Maildir"
    status = (home.path / "alias").stat()
    for path in (maildir, *(maildir / each for each in ("tmp", "new", "cur"))):
        path.mkdir(mode=0o700)
        os.chown(path, status.st_uid, status.st_gid)
    (home.path / "alias" / ".qmail-bench").write_text("./Maildir/\n")
    home.preload(count, "bench@bench.example", SIZE)
    run = home.drain(count)
    found = len(mailbox.Maildir(maildir))
    if found != count:
        raise RuntimeError(f"{found} messages of {count} in {maildir}")
    home.remove()
    return run


def show(name: str, runs: Sequence[Run]) -> None:
    """One line: median and spread."""

    def spread(figure: Callable[[Run], float], digits: int) -> str:
        values = [figure(run) for run in runs]
        median = statistics.median(values)
        return (
            f"{median:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
        )

    print(
        f"{name:14} {spread(lambda run: run.rate, 0):>24} msg/s"
        f"  {spread(lambda run: run.cpu_per_1000, 2):>20} cpu s/1000"
        f"  {spread(lambda run: run.peak_mib, 0):>16} MiB peak"
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--durability", default="full", choices=["full", "qmail", "none"]
    )
    parser.add_argument("--only", choices=["remote", "local"])
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    print(
        f"qsend {commit or 'without git'}, durability {options.durability}, "
        f"{options.messages} messages of {SIZE} bytes, {options.runs} runs, "
        f"{os.cpu_count()} cores, Linux {platform.release()}, {_file_system()}"
    )
    workloads = {"remote": remote, "local": local}
    for name, workload in workloads.items():
        if options.only in (None, name):
            runs = [
                workload(options.messages, options.durability)
                for _ in range(options.runs)
            ]
            show(f"{name} drain", runs)


def _file_system() -> str:
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, where, kind, *_ = line.split()
        if WHERE.startswith(where.rstrip("/") or "/") and len(where) > len(best[0]):
            best = (where, kind)
    return best[1]


if __name__ == "__main__":
    main()
