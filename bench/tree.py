"""A qsend home of its own, the tree running in it, and what the tree costs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from qsend.sysio.inodegroups import scatter
from tests.longqueue import Mail, fill_todo

ROOT = Path(__file__).parents[1]
SENDER = b"bench@bench.example"
WHERE = os.environ.get("BENCH_DIR", "/tmp")


def far_apart(path: Path) -> None:
    """Put what is made in this directory into block groups far from each other."""
    fd = os.open(path, os.O_RDONLY)
    try:
        scatter(fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One drain: wall seconds, processor seconds of the whole tree, peak memory."""

    messages: int
    wall_s: float
    cpu_s: float
    peak_mib: float

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.wall_s

    @property
    def cpu_per_1000(self) -> float:
        """Processor seconds per 1000 messages."""
        return self.cpu_s * 1000 / self.messages


class Home:
    """A home directory below /tmp, set up by `qsend setup`."""

    def __init__(self, controls: Mapping[str, str]) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="qsend-bench-", dir=WHERE))
        self.path.chmod(0o755)
        self._qsend("setup", "--me", "bench.example", *self._mode())
        for name, content in controls.items():
            (self.path / "control" / name).write_text(content)

    def preload(self, count: int, recip: str, size: int) -> None:
        """Queue `count` messages of `size` bytes; `%d` in `recip` is the number."""
        line = b"x" * 63 + b"\n"
        body = b"Subject: bench\n\n" + line * ((size - 16) // 64)

        mails = (
            Mail(body, SENDER, (recip.replace("%d", str(number)).encode(),))
            for number in range(count)
        )
        fill_todo(self.path / "queue", mails, single_user=os.getuid() != 0)
        os.sync()

    def drain(self, messages: int, timeout_s: float = 120) -> Run:
        """Start the tree, wait until every message has ended, stop it."""
        log_path = self.path / "log"
        with log_path.open("wb") as log:
            begin = time.monotonic()
            tree = subprocess.Popen(
                [*self._command("start"), *self._mode()], stdout=log, stderr=log
            )
        process = psutil.Process(tree.pid)
        try:
            peak = 0.0
            while (ended := log_path.read_bytes().count(b"\nend msg ")) < messages:
                if time.monotonic() - begin > timeout_s or tree.poll() is not None:
                    raise RuntimeError(f"{ended} of {messages}; see {log_path}")
                peak = max(peak, _memory_mib(process))
                time.sleep(0.02)
            wall_s = time.monotonic() - begin
            cpu_s = _cpu_s(process)
        finally:
            tree.send_signal(signal.SIGTERM)
            tree.wait(30)
        return Run(messages=messages, wall_s=wall_s, cpu_s=cpu_s, peak_mib=peak)

    def remove(self) -> None:
        """Delete the home."""
        shutil.rmtree(self.path)

    def _mode(self) -> list[str]:
        return [] if os.getuid() == 0 else ["--single-user"]

    def _command(self, command: str) -> list[str]:
        return [sys.executable, "-m", "qsend", command, "--home", str(self.path)]

    def _qsend(self, command: str, *args: str) -> None:
        subprocess.run(
            [*self._command(command), *args],
            check=True,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu_s(process: psutil.Process) -> float:
    """Processor seconds of the tree, ended children included."""
    total = 0.0
    for each in _family(process):
        times = each.cpu_times()
        total += times.user + times.system
        total += times.children_user + times.children_system
    return total


def _memory_mib(process: psutil.Process) -> float:
    total = 0
    for each in _family(process):
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / (1 << 20)


def free_port() -> int:
    """A loopback TCP port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def smtp_sink() -> Iterator[int]:
    """Debian's smtp-sink on a loopback port; gives the port."""
    program = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"
    port = free_port()
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    sink = subprocess.Popen(
        [program, *user, "-c", f"127.0.0.1:{port}", "1000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/tmp",
    )
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        sink.terminate()
        sink.wait(10)
