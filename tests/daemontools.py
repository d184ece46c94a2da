"""Debian's daemontools, scanning a directory of the test's own.

With a `Stage`, svscan and all that it runs see the test's home at /var/qmail, the
programs of daemontools and ucspi-tcp in /usr/local/bin, an /etc that can be written,
and a network of their own, in namespaces that nobody else sees.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from qsend.sysio import clock

WAIT_S = 30.0
_STAGE = """
mount --bind "$1/var" /var &&
mount --bind "$2" /var/qmail &&
mount --bind "$1/programs" /usr/local/bin &&
mount -t overlay none -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc &&
ip link set lo up || exit 99
shift 2
exec "$@"
"""
_NO_MOUNT = 99
_ALONE = ["unshare", "--mount", "--net", "--propagation", "private"]
_TOOLS = ("multilog", "setuidgid", "softlimit", "tcpserver", "rblsmtpd")
# A line of `multilog t`: TAI64N with 16 digits of seconds and 8 of nanoseconds.
STAMPED = re.compile(rb"(?m)^@4[0-9a-f]{15}[0-9a-f]{8} (.*)$")


class Services:
    """svscan on `directory`, and the services that are linked into it."""

    def __init__(self, directory: Path, stage: tuple[Path, Path] | None = None) -> None:
        """Scan it.

        `stage`: a directory for what it needs, and the home that is /var/qmail.
        """
        directory.mkdir()
        self.directory = directory
        command = ["svscan", str(directory)]
        self._inside: list[int] = []
        if stage is not None:
            top, home = stage
            _prepare(top)
            command = [*_ALONE, "sh", "-c", _STAGE, "sh", str(top), str(home), *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": os.environ["PATH"]},
            cwd="/",
        )
        self._wait(
            lambda: self._name() == "svscan" or self.process.poll() == _NO_MOUNT,
            "svscan",
        )
        if self.process.poll() == _NO_MOUNT:
            pytest.skip("this machine lets root mount nothing")
        if stage is not None:
            self._inside = [
                os.open(f"/proc/{self.process.pid}/ns/{kind}", os.O_RDONLY)
                for kind in ("mnt", "net")
            ]

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the scan, then each service, then its log, and what hangs by force."""
        members = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait(WAIT_S)
        names = [str(each) for each in self.directory.iterdir()]
        logs = [f"{name}/log" for name in names]
        for ending, waited in ((names, _not_logs(members)), (logs, members)):
            self.run("svc", "-dx", *ending, check=False)
            _, alive = psutil.wait_procs(waited, WAIT_S)
        for each in alive:
            each.kill()
        for fd in self._inside:
            os.close(fd)
        assert not alive

    def link(self, service: str) -> None:
        """As `ln -s SERVICE /service/`."""
        self.run("ln", "-s", service, f"{self.directory}/")

    def run(
        self, *command: str, stdin: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command where the services are."""
        inside: list[str] = []
        if self._inside:
            mnt, net = (f"/proc/{os.getpid()}/fd/{fd}" for fd in self._inside)
            inside = ["nsenter", f"--mount={mnt}", f"--net={net}"]
        done = subprocess.run(
            [*inside, *command],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=120,
            cwd="/",
            env={"PATH": os.environ["PATH"]},
        )
        if check:
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def shell(self, text: str) -> bytes:
        """Run lines of a howto; what they print."""
        return self.run("sh", "-e", "-c", text).stdout

    def svc(self, options: str, *names: str) -> None:
        """As `svc -OPTIONS /service/NAME`."""
        self.run("svc", f"-{options}", *(f"{self.directory}/{name}" for name in names))

    def stat(self, name: str) -> bytes:
        """As `svstat /service/NAME`."""
        return self.run("svstat", f"{self.directory}/{name}").stdout

    def wait_stat(self, name: str, pattern: bytes) -> re.Match[bytes]:
        """Wait until svstat says so."""
        found: list[re.Match[bytes] | None] = [None]

        def holds() -> bool:
            found[0] = re.search(pattern, self.stat(name))
            return found[0] is not None

        self._wait(holds, f"{name}: {pattern!r}")
        assert found[0] is not None
        return found[0]

    def wait_log(self, directory: str, pattern: bytes, count: int = 1) -> bytes:
        """Wait for `count` matches in what multilog has; the lines, without stamps."""
        lines = b""

        def holds() -> bool:
            nonlocal lines
            done = self.run("cat", f"{directory}/current", check=False)
            lines = b"\n".join(STAMPED.findall(done.stdout)) + b"\n"
            return len(re.findall(pattern, lines)) >= count

        try:
            self._wait(holds, directory)
        except AssertionError:
            raise AssertionError(f"{pattern!r} not in:\n{lines.decode()}") from None
        return lines

    def _wait(self, holds: object, what: str) -> None:
        assert callable(holds)
        deadline_mono = clock.mono() + WAIT_S
        while not holds():
            assert self.process.poll() is None, what
            assert clock.mono() < deadline_mono, what
            select.select([], [], [], 0.05)

    def _name(self) -> str:
        return psutil.Process(self.process.pid).name()


def _not_logs(members: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that end with the services; the loggers and their supervisors go later."""
    found = []
    for each in members:
        try:
            if each.name() != "multilog" and each.cmdline() != ["supervise", "log"]:
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def _prepare(top: Path) -> None:
    for name in ("var/qmail", "var/log", "programs", "etc", "work"):
        (top / name).mkdir(parents=True)
    for name in _TOOLS:
        (top / "programs" / name).symlink_to(f"/usr/bin/{name}")
