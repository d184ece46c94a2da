"""A whole tree of processes in a home of its own, driven from outside.

    with Tree(installation, path, mode) as tree:
        tree.start()
        tree.send([b"postmaster@here.example"])
        tree.wait_for(b"end msg")

`Installation` is a copy of the package that every account of the machine can read,
wherever the checkout lies. Nothing sleeps: waiting means reading the log's pipe.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import psutil

from qsend.sysio import clock

ROOT = Path(__file__).parents[2]
HOST = "here.example"
WAIT_S = 60.0
_STARTING = re.compile(rb"(?m)^starting delivery (\d+): msg \d+ to \w+ (.*)\n")
_REPORT = re.compile(rb"(?m)^delivery (\d+): (.*)\n")


@dataclass(frozen=True)
class Installation:
    """Where an installed copy of qsend is; `python` runs it."""

    path: Path

    def new_home(self) -> Path:
        """A place for a home that lives as long as the installation."""
        parent = Path(tempfile.mkdtemp(prefix="home-", dir=self.path.parent))
        parent.chmod(0o755)
        return parent / "home"

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
            "aiosmtpd", "attr", "public",
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


def until(holds: Callable[[], bool]) -> None:
    """Wait for what the log does not tell, as a change of a queue file."""
    deadline = clock.mono() + WAIT_S
    while not holds():
        assert clock.mono() < deadline
        select.select([], [], [], 0.005)


def first_dues(birth: float, skip: int) -> list[int]:
    """When a message may be due after an attempt in its first 36 seconds.

    A slow machine makes the first attempt a little late.
    """
    return [int(birth) + (root + skip) ** 2 for root in range(6)]


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
        self._began = self._seen = 0
        self._strays: list[psutil.Process] = []
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

    def ask(self, name: str, *args: str) -> Any:
        """What `qsend NAME --json` prints, parsed."""
        return json.loads(self.run(name, "--json", *args).stdout)

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

    def alias(self, local: str, content: str) -> Path:
        """Write ~alias/.qmail-LOCAL."""
        path = self.home / f"alias/.qmail-{local}"
        path.write_text(content)
        owner = (self.home / "alias").stat()
        os.chown(path, owner.st_uid, owner.st_gid)
        return path

    def maildir(self, name: str = "Maildir", home: Path | None = None) -> Path:
        """A maildir below ~alias, or another home, of its owner."""
        home = home or self.home / "alias"
        owner = home.stat()
        path = home / name
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

    def queue(
        self,
        recips: Sequence[bytes],
        message: bytes = b"Subject: test\n\nbody\n",
        sender: bytes = b"me@elsewhere.example",
        uid: int | None = None,
        command: Sequence[str] = (),
    ) -> int:
        """Run qmail-queue with any envelope; its pid, which the log shows as qp.

        `command` is another program that takes what qmail-queue takes.
        """
        envelope = b"F%b\0%b\0" % (sender, b"".join(b"T%b\0" % r for r in recips))
        fds = [os.memfd_create(name) for name in ("message", "envelope")]
        try:
            for fd, content in zip(fds, (message, envelope), strict=True):
                os.write(fd, content)
                os.lseek(fd, 0, os.SEEK_SET)
            with subprocess.Popen(
                command or [str(self.home / "bin/qmail-queue")],
                stdin=fds[0],
                stdout=fds[1],
                cwd="/",
                env={"PATH": os.environ["PATH"], "QSEND_HOME": str(self.home)},
                **_as_user(self.uid if uid is None else uid),
            ) as process:
                assert process.wait(60) == 0
                return process.pid
        finally:
            for fd in fds:
                os.close(fd)

    # the tree

    def start(
        self, *args: str, until: bytes = b"status: local 0/", patch: str = ""
    ) -> None:
        """Start the tree and wait until it says something.

        `patch` is Python that runs first, for tests of what takes hours.
        """
        command = self.command("start", *args)
        if patch:
            run = "import sys; from qsend.cli.main import main; sys.exit(main())"
            command[1:3] = ["-c", f"{patch}\n{run}"]
        self.launch(command, until)

    def launch(self, command: Sequence[str], until: bytes) -> None:
        """As `start`, by any command that works this queue in the foreground."""
        self.kill(strays=False)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
            env={"PATH": os.environ["PATH"]},
            **_as_user(self.uid),
        )
        self._began = self._seen = len(self.log)
        if until:
            self.wait_for(until)

    def wait_for(
        self, pattern: bytes, count: int = 1, wait_s: float = WAIT_S
    ) -> re.Match[bytes]:
        """Read the log until `count` matches of `pattern` came since the last wait.

        What is behind the last of them is looked at by the next wait.
        Returns: the last of them.
        """
        deadline = clock.mono() + wait_s
        wanted = re.compile(pattern)
        while True:
            found = list(wanted.finditer(self.log, self._seen))
            if len(found) >= count:
                self._seen = found[count - 1].end()
                return found[count - 1]
            if not self._read(deadline - clock.mono()):
                raise AssertionError(
                    f"{pattern!r} {len(found)} of {count} in:\n"
                    + self.log.decode(errors="replace")
                )

    def signal(self, signum: int) -> None:
        """Send a signal to start."""
        assert self.process is not None
        self.process.send_signal(signum)

    def new_messid(self) -> int:
        """The number of the next message that the log tells of."""
        return int(self.wait_for(rb"new msg (\d+)\n")[1])

    def reports(self, *recips: bytes) -> list[bytes]:
        """Wait for a report on each stored address; the first report of each.

        As the log shows them, "success: did_1+0+0/" for one.
        """
        deadline = clock.mono() + WAIT_S
        while True:
            found = self.reported()
            if found.keys() >= set(recips):
                return [found[recip] for recip in recips]
            if not self._read(deadline - clock.mono()):
                missing = set(recips) - found.keys()
                raise AssertionError(
                    f"no report on {missing!r} in:\n"
                    + self.log.decode(errors="replace")
                )

    def reported(self) -> dict[bytes, bytes]:
        """The first report of each address that the log of this start has by now."""
        log = self.log[self._began :]
        text = dict(_REPORT.findall(log))
        # Later attempts must not hide the first: take them last to first.
        return {
            address: text[delid]
            for delid, address in reversed(_STARTING.findall(log))
            if delid in text
        }

    def find(self, pattern: bytes, wait_s: float = WAIT_S) -> re.Match[bytes]:
        """Read the log until `pattern` is found in the whole of it."""
        deadline = clock.mono() + wait_s
        while (found := re.search(pattern, self.log)) is None:
            if not self._read(deadline - clock.mono()):
                raise AssertionError(
                    f"{pattern!r} not in:\n" + self.log.decode(errors="replace")
                )
        return found

    def stop_by_command(self) -> int:
        """`qsend stop`: enqueue goes on; the exit code of start."""
        self._strays += map(psutil.Process, self.pids("qmail-queue"))
        self.run("stop")
        assert self.process is not None
        code = self.process.wait(WAIT_S)
        # enqueue still has the other end: this is the end of the rest.
        while self._read(0):
            pass
        self.kill(strays=False)
        return code

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

    def kill(self, *, strays: bool = True) -> None:
        """End what is left of the tree, by pid; without the strays only the tree."""
        members = self.family()
        if strays:
            members += self._strays
            self._strays = []
        for each in reversed(members):
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        if self.process is None:
            return
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
        found = {}
        for each in self.family():
            try:
                if each.cmdline()[:1] == [f"{title}: qsend"]:
                    found[each.pid] = each.ppid()
            except psutil.NoSuchProcess:
                continue
        # A child that has just been forked still has its parent's title.
        return [pid for pid, parent in found.items() if parent not in found]

    def queue_files(self) -> list[Path]:
        """Every file of a message in the queue."""
        queue = self.home / "queue"
        return [
            path
            for path in queue.rglob("*")
            if path.is_file() and path.parent.name != "lock"
        ]

    def wait_empty(self) -> None:
        """Wait until no file and no entry is left: mess/N goes after "end msg"."""
        deadline_mono = clock.mono() + WAIT_S
        while left := self.queue_files() or self.ask("queue"):
            assert clock.mono() < deadline_mono, left
            time.sleep(0.01)

    def watch(self, wait_s: float) -> None:
        """Wait for the log to say something, or for that long."""
        self._read(wait_s)

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
