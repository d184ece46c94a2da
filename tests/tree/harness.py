"""A whole tree of processes in a home of its own, driven from outside.

    with Tree(installation, path, mode) as tree:
        tree.start()
        tree.send([b"postmaster@here.example"])
        tree.wait_for(b"end msg")

`Installation` is a copy of the package that every account of the machine can read,
wherever the checkout lies. Nothing sleeps: waiting means reading the log's pipe.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import site
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import psutil

from qsend.sysio import clock

ROOT = Path(__file__).parents[2]
HOST = "here.example"
WAIT_S = 30.0


@dataclass(frozen=True)
class Installation:
    """Where an installed copy of qsend is; `python` runs it."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin/python"


def install(path: Path) -> Installation:
    """Copy the package and what it needs into a virtual environment below `path`."""
    subprocess.run(
        [Path(sys.prefix) / "bin/python", "-m", "venv", "--without-pip", path],
        check=True,
    )
    [target] = (path / "lib").glob("python3.*/site-packages")
    for source in map(Path, site.getsitepackages()):
        for name in (
            "dns", "psutil", "pymysql", "uvloop", "cdblib", "setproctitle",
        ):  # fmt: skip
            for found in source.glob(f"{name}*"):
                if found.is_dir() and not found.name.endswith("-info"):
                    shutil.copytree(found, target / found.name, dirs_exist_ok=True)
                elif found.is_file():
                    shutil.copy(found, target)
    shutil.copytree(ROOT / "qsend", target / "qsend")
    subprocess.run(["chmod", "-R", "a+rX", path], check=True)
    return Installation(path)


class Tree:
    """A home, and the tree that runs in it between `start` and `stop`."""

    def __init__(
        self, installation: Installation, home: Path, uid: int | None = None
    ) -> None:
        """Set the home up.

        Args:
            home: does not exist yet; its parent lets everybody in.
            uid: of a single-user tree; None for the caller's: the real accounts
                for root, single-user for anybody else.
        """
        self.home = home
        self.installation = installation
        self.uid = os.getuid() if uid is None else uid
        self.log = b""
        self.process: subprocess.Popen[bytes] | None = None
        self._seen = 0
        home.mkdir()
        os.chown(home, self.uid, -1)
        home.chmod(0o755)
        self.run("setup", "--me", HOST)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    # commands

    def command(self, name: str, *args: str) -> list[str]:
        """The command line of `qsend NAME` for this home."""
        python = str(self.installation.python)
        return [python, "-m", "qsend", name, "--home", str(self.home), *args]

    def run(
        self, name: str, *args: str, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `qsend NAME` to its end."""
        return self.call(self.command(name, *args), check=check)

    def program(
        self, name: str, *args: str, stdin: bytes = b"", uid: int | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program of the home's bin directory to its end."""
        program = str(self.home / "bin" / name)
        return self.call([program, *args], stdin=stdin, uid=uid, check=False)

    def call(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        uid: int | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run any command with this home in its environment."""
        user = self.uid if uid is None else uid
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            check=False,
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "QSEND_HOME": str(self.home),
                **(env or {}),
            },
            timeout=60,
            **_as_user(user),
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode} {done.stderr!r}")
        return done

    # controls and mail

    def control(self, name: str, content: str | None) -> None:
        """Write a control file, or remove it."""
        path = self.home / "control" / name
        if content is None:
            path.unlink()
        else:
            path.write_text(content)

    def alias(self, local: str, content: str) -> None:
        """Write ~alias/.qmail-LOCAL."""
        path = self.home / f"alias/.qmail-{local}"
        path.write_text(content)
        owner = (self.home / "alias").stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def maildir(self, name: str = "Maildir") -> Path:
        """A maildir below ~alias."""
        owner = (self.home / "alias").stat()
        path = self.home / "alias" / name
        for each in (path, *(path / part for part in ("tmp", "new", "cur"))):
            each.mkdir(mode=0o700)
            os.chown(each, owner.st_uid, owner.st_gid)
        return path

    def send(
        self,
        recips: Sequence[bytes],
        message: bytes = b"Subject: test\n\nbody\n",
        sender: bytes = b"me@elsewhere.example",
        uid: int | None = None,
    ) -> None:
        """Queue one message by qmail-queue's programs."""
        names = [os.fsdecode(each) for each in recips]
        done = self.program(
            "qmail-inject",
            *("-a", "-f", os.fsdecode(sender), "--", *names),
            stdin=message,
            uid=uid,
        )
        assert done.returncode == 0, done.stderr

    # the tree

    def start(self, *args: str, until: bytes = b"status: local 0/") -> None:
        """Start the tree and wait until it says something."""
        self.process = subprocess.Popen(
            self.command("start", *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
            env={"PATH": os.environ["PATH"]},
            **_as_user(self.uid),
        )
        self._seen = len(self.log)
        if until:
            self.wait_for(until)

    def wait_for(self, pattern: bytes, count: int = 1, wait_s: float = WAIT_S) -> None:
        """Read the log until `count` matches of `pattern` came since the last wait.

        What is behind the last of them is looked at by the next wait.
        """
        deadline = clock.mono() + wait_s
        wanted = re.compile(pattern)
        while True:
            found = list(wanted.finditer(self.log, self._seen))
            if len(found) >= count:
                self._seen = found[count - 1].end()
                return
            if not self._read(deadline - clock.mono()):
                raise AssertionError(
                    f"{pattern!r} {len(found)} of {count} in:\n"
                    + self.log.decode(errors="replace")
                )

    def signal(self, signum: int) -> None:
        """Send a signal to start."""
        assert self.process is not None
        self.process.send_signal(signum)

    def stop(self) -> int:
        """TERM, and the exit code; the rest of the log is read."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, wait_s: float = WAIT_S) -> int:
        """Read the log to its end; the exit code."""
        assert self.process is not None
        deadline = clock.mono() + wait_s
        while self._read(deadline - clock.mono()):
            pass
        return self.process.wait(max(0.1, deadline - clock.mono()))

    def kill(self) -> None:
        """End what is left of the tree, by pid."""
        if self.process is None:
            return
        for each in reversed(self.family()):
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    def family(self) -> list[psutil.Process]:
        """start and everything below it, start first."""
        if self.process is None or self.process.poll() is not None:
            return []
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def pids(self, title: str) -> list[int]:
        """Pids of the processes titled `TITLE: qsend`, as "qmail-send"."""
        found = []
        for each in self.family():
            try:
                if each.cmdline()[:1] == [f"{title}: qsend"]:
                    found.append(each.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def queue_files(self) -> list[Path]:
        """Every file of a message in the queue."""
        queue = self.home / "queue"
        return [
            path
            for path in queue.rglob("*")
            if path.is_file() and path.parent.name != "lock"
        ]

    def _read(self, wait_s: float) -> bool:
        """Take what the log has next; False at its end or when time is over."""
        assert self.process is not None
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        ready, _, _ = select.select([fd], [], [], max(0.0, wait_s))
        if not ready:
            return False
        data = os.read(fd, 65536)
        self.log += data
        return bool(data)


class _User(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _as_user(uid: int) -> _User:
    """Arguments that make subprocess run as `uid`; none for the caller's own."""
    if uid == os.getuid():
        return {}
    return {"user": uid, "group": uid, "extra_groups": []}
