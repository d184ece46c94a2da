"""What the suite asks of every mail system that it measures."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import cpugroup, proctree
from bench.errors import BenchError
from bench.letters import Letter
from bench.mailboxes import Mailboxes
from bench.tree import WHERE, far_apart

HOST = "bench.example"
"""Whose mail is local."""
SMTP_PORT, QMQP_PORT = 2525, 6280
STOP_S = 30.0
CLOSE_S = 0.5
"""How long what is deleted next may take to end: some wait for hosts that hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a system is set up for.

    `relay` is the port at 127.0.0.1 that all remote mail goes to; without one MX
    records decide. `slots` are remote deliveries at once, `per_host` to one host.
    With `is_held` nothing is delivered before `release`.
    """

    relay: int | None = None
    mailboxes: Mailboxes | None = None
    slots: int = 50
    per_host: int = 50
    listens: bool = False
    is_held: bool = False
    durability: str = "full"


class System(ABC):
    """A mail system in a directory of its own.

    Order of calls: open, queue (any number), then go; or boot for one that takes mail
    by itself; close at last, also when open failed or was interrupted.
    """

    name = ""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._top = Path(WHERE, f"qsend-bench-{secrets.token_hex(4)}")
        self.path = self._top / "home"
        self.process: subprocess.Popen[bytes] | None = None
        self._group: cpugroup.CpuGroup | None = None

    def open(self) -> None:
        """Make its directory and set it up for its site."""
        self._top.mkdir()
        far_apart(self._top)
        self.path.mkdir()
        for each in (self._top, self.path):
            each.chmod(0o755)
        self._group = cpugroup.make(self._top.name)
        self.set_up()

    @abstractmethod
    def set_up(self) -> None:
        """Write its configuration into its directory."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """What differs from its defaults, for the report."""

    @abstractmethod
    def boot(self) -> None:
        """Start it and wait until it runs."""

    @abstractmethod
    def queue(self, letters: Sequence[Letter]) -> None:
        """Put messages where it does not see them before `go`. It runs afterwards."""

    @abstractmethod
    def go(self) -> None:
        """Let it see them; returns at once."""

    @abstractmethod
    def backlog(self) -> int:
        """How many messages are in its queue."""

    @abstractmethod
    def release(self) -> None:
        """Deliver what a held system has taken."""

    def sendmail(self, recip: str) -> list[str]:
        """The command line of its sendmail for one recipient."""
        raise BenchError(f"{self.name} has no sendmail here")

    def queue_program(self) -> list[str]:
        """The command line of its qmail-queue."""
        raise BenchError(f"{self.name} has no qmail-queue here")

    def environ(self) -> dict[str, str]:
        """The environment of its programs."""
        return {"PATH": os.environ["PATH"]}

    def inside(self, command: Sequence[str]) -> list[str]:
        """A command as it must be run to find this system's files."""
        return list(command)

    def settle(self) -> None:  # noqa: B027
        """Wait until all mail that was taken lies where the queue manager looks."""

    def roots(self) -> list[int]:
        """The tops of its trees."""
        return [] if self.process is None else [self.process.pid]

    def cpu_s(self) -> float:
        """Processor seconds so far, those of processes that ended included."""
        if self._group is not None:
            return self._group.cpu_s()
        return proctree.cpu_s(self.roots())

    def wait_empty(self, timeout_s: float = 120) -> None:
        """Until nothing is queued. Raises: BenchError."""
        self.wait(lambda: self.backlog() == 0, "its queue is not empty", timeout_s)

    def wait(
        self, holds: Callable[[], bool], complaint: str, timeout_s: float = 60
    ) -> None:
        """Until something holds. Raises: BenchError when late, or when it ended."""
        end = time.monotonic() + timeout_s
        looked = time.monotonic()
        while not holds():
            if self.process is not None and self.process.poll() is not None:
                raise BenchError(f"{self.name} has ended: {self.log_tail()}")
            if time.monotonic() > end:
                raise BenchError(f"{self.name}: {complaint} after {timeout_s} s")
            # Looking at a long queue takes a while, which must not slow the system.
            time.sleep(max(0.005, 10 * (time.monotonic() - looked)))
            looked = time.monotonic()

    @property
    def log(self) -> Path:
        """Its log."""
        return self.path / "log"

    def log_tail(self) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return "no log"
        return self.log.read_text(errors="replace")[-600:]

    def spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start something that writes to the log."""
        if self._group is not None:
            command = self._group.command(command)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self.environ(),
                start_new_session=True,
            )

    def stop(self, patience_s: float = STOP_S) -> None:
        """End the tree, by force when it takes long."""
        process, self.process = self.process, None
        if process is None:
            return
        members = proctree.family(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        proctree.end(members, STOP_S)

    def close(self) -> None:
        """End it."""
        self.stop(CLOSE_S)
        if self._group is not None:
            self._group.remove()

    def remove(self) -> None:
        """Delete its directory, if it has been made."""
        if self._top.exists():
            shutil.rmtree(self._top)


def count_files(paths: Sequence[Path]) -> int:
    """Files in these directories, without those below."""
    total = 0
    for path in paths:
        with os.scandir(path) as entries:
            total += sum(1 for each in entries if not each.is_dir())
    return total
