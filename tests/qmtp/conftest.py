"""A running tree that takes mail by QMTP and QMQP, and clients of it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pwd import getpwnam

import pytest

from qsend.formats.netstring import render
from tests.ports import free_ports
from tests.tree.conftest import installation
from tests.tree.harness import HOST, Installation, Tree

__all__ = ["installation"]

WAIT_S = 60.0
LOOPBACK = "127.:allow\n=:allow\n"


@dataclass(frozen=True, kw_only=True)
class QmtpTree:
    """A tree and the ports of its listeners."""

    tree: Tree
    qmtp: int
    qmqp: int

    def start(self) -> None:
        """Run it; mail for box@here.example is kept."""
        self.tree.start("--default-delivery", "./Maildir/")

    def rules(self, service: str, text: str) -> None:
        """Make control/tcp.SERVICE.cdb."""
        (self.tree.home / f"control/tcp.{service}").write_text(text)
        self.tree.run("tcprules", service)

    def kept(self) -> list[bytes]:
        """The messages that were delivered to box."""
        new = self.tree.home / "alias/Maildir/new"
        return [path.read_bytes() for path in new.iterdir()]

    def queued(self) -> list[Path]:
        """The messages in the queue."""
        return sorted((self.tree.home / "queue/mess").glob("*/*"))

    def drafts(self) -> int:
        """Messages on their way into the queue: files without a name in enqueue."""
        [pid] = self.tree.pids("qmail-queue")
        links = []
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(fd))
        return sum(bool(re.search(r"/queue/(pid|mess/\d+)/", link)) for link in links)

    @contextmanager
    def tcpserver(self, program: str, **environ: str) -> Iterator[int]:
        """bin/PROGRAM under Debian's tcpserver, as qmaild; the port.

        Exit codes are on its descriptor 2 (`end PID status STATUS`).
        """
        entry = getpwnam("qmaild")
        command = [
            "tcpserver", "-1", "-v", "-H", "-R", "-l", "me.example", "-c", "400",
            "-b", "100", "-u", str(entry.pw_uid), "-g", str(entry.pw_gid),
            "127.0.0.1", "0", str(self.tree.home / "bin" / program),
        ]  # fmt: skip
        env = {"PATH": os.environ["PATH"], **environ}
        with (
            open(self.tree.home / "tcpserver.log", "wb") as log,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=env
            ) as server,
        ):
            assert server.stdout is not None
            try:
                yield int(server.stdout.readline())
            finally:
                server.terminate()

    def statuses(self) -> list[int]:
        """The exit codes of what tcpserver ran, in their order."""
        lines = (self.tree.home / "tcpserver.log").read_text().splitlines()
        words = [line.split() for line in lines if line.startswith("tcpserver: end ")]
        return [int(word[4]) >> 8 for word in words]


class Client:
    """A client that sends what it likes."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection((address, port), WAIT_S)
        self._stream = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send; that nobody listens shows in what is read."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def half_close(self) -> None:
        """Say nothing more, and listen."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def answer(self) -> bytes:
        """The content of the next netstring; b"" at the end of all."""
        digits = b""
        while (byte := self._read(1)) != b":":
            if not byte:
                assert digits == b""
                return b""
            digits += byte
        content = self._read(int(digits))
        assert self._read(1) == b","
        return content

    def rest(self) -> list[bytes]:
        """All answers until the server hangs up."""
        found = []
        while answer := self.answer():
            found.append(answer)
        return found

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except ConnectionResetError:
            return b""


def package(message: bytes, sender: bytes, *recips: bytes) -> bytes:
    """A QMTP package; `message` begins with its encoding."""
    return render(message) + render(sender) + render(b"".join(map(render, recips)))


def request(message: bytes, sender: bytes, *recips: bytes) -> bytes:
    """A QMQP request."""
    return render(b"".join(map(render, (message, sender, *recips))))


@pytest.fixture
def unstarted(installation: Installation, open_tmp: Path) -> Iterator[QmtpTree]:
    """The tree, set up and not started."""
    with Tree(installation, open_tmp / "home") as tree:
        qmtp, qmqp = free_ports(2)
        tree.control("qmtplisten", f"127.0.0.1:{qmtp}\n[::1]:{qmtp}\n")
        tree.control("qmqplisten", f"127.0.0.1:{qmqp}\n")
        tree.control("rcpthosts", f"{HOST}\n.sub.example\n")
        tree.maildir()
        tree.alias("box", "./Maildir/\n")
        made = QmtpTree(tree=tree, qmtp=qmtp, qmqp=qmqp)
        made.rules("qmqp", "127.0.0.1:allow\n")
        yield made


@pytest.fixture
def served(unstarted: QmtpTree) -> QmtpTree:
    """The tree, running."""
    unstarted.start()
    return unstarted


@pytest.fixture(params=["listener", "tcpserver"])
def both(
    request: pytest.FixtureRequest, served: QmtpTree
) -> Iterator[tuple[QmtpTree, int, int]]:
    """The tree, running, and ports for QMTP and QMQP: its own or tcpserver's."""
    if request.param == "listener":
        yield served, served.qmtp, served.qmqp
        return
    with (
        served.tcpserver("qmail-qmtpd") as qmtp,
        served.tcpserver("qmail-qmqpd") as qmqp,
    ):
        yield served, qmtp, qmqp
