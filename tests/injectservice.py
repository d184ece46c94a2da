"""An injection service on real sockets and a real queue, in one process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qsend.core.model import MessId
from qsend.core.quota import Limits
from qsend.formats import injection
from qsend.formats.control import Durability
from qsend.formats.frames import split
from qsend.sysio import clock
from qsend.sysio.callers import Caller
from qsend.sysio.endpoint import pair
from qsend.sysio.injectconnection import Connection
from qsend.sysio.injectserver import InjectServer
from qsend.sysio.injectstream import Intake
from qsend.sysio.loop import Loop
from qsend.sysio.queuewriter import QueueWriter
from qsend.sysio.syncer import Syncer
from tests.injecthome import (
    DEADLINE_S,
    make_queue,
    many_accounts,
    one_account,
    queue_files,
)

Make = Callable[..., "Service"]
GOOD = b"Fa@b\0Tc@d\0\0"
ROOT = Caller(uid=0, pid=77, who=b"by uid 0", is_trusted=True)


def ordinary(uid: int, *, is_exempt: bool = False) -> Caller:
    return Caller(
        uid=uid,
        pid=1000 + uid,
        who=b"by uid %d" % uid,
        is_trusted=False,
        is_exempt=is_exempt,
    )


class Service:
    """A server in this process; `turn_until` runs it."""

    def __init__(self, home: Path, limits: Limits, min_free: int = 0) -> None:
        self.queue = make_queue(home, one_account().qmailq)
        self.loop = Loop()
        self.writer = QueueWriter(str(self.queue))
        self.syncer = Syncer(self.loop, Durability.FULL, [self.writer.todo_fd])
        self.queued: list[MessId] = []
        self.troubles: list[str] = []
        self.rounds: list[tuple[int, int]] = []
        self.intake = Intake(
            self.writer,
            self.syncer,
            min_free=min_free,
            start_pid=0,
            on_queued=self.queued.append,
            on_trouble=self.troubles.append,
        )
        self.asked: list[Connection] = []
        self.server = InjectServer(
            self.loop, self.intake, many_accounts(), limits, self._hand_over
        )
        self.socks: list[socket.socket] = []

    def _hand_over(self, connection: Connection) -> bool:
        self.asked.append(connection)
        return False

    def client(self, caller: Caller = ROOT) -> socket.socket:
        ours, theirs = pair()
        ours.setblocking(False)
        self.socks.append(ours)
        self.server.adopt(theirs, caller)
        return ours

    def listen(self, path: Path) -> str:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Relative, for the sake of sun_path.
        name = os.path.relpath(path / "s")
        sock.bind(name)
        os.chmod(name, 0o666)
        sock.listen(100)
        self.server.listen(sock)
        return name

    def connect(self, name: str, uid: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socks.append(sock)
        with effective_uid(uid):
            sock.connect(name)
        sock.setblocking(False)
        self.loop.turn(0)
        return sock

    def turn_until(self, is_done: Callable[[], bool]) -> None:
        end_mono = clock.mono() + DEADLINE_S
        while not is_done():
            assert clock.mono() < end_mono
            self.loop.turn(0.05)

    def frames(self, sock: socket.socket) -> list[tuple[bytes, bytes]]:
        """The next packet's frames; [] when closed."""
        packets: list[bytes] = []

        def arrived() -> bool:
            try:
                packets.append(sock.recv(1 << 16))
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return False  # said once; what was sent before comes next
            return True

        self.turn_until(arrived)
        return list(split(packets[0]))

    def results(self, sock: socket.socket, count: int) -> list[tuple[int, int, int]]:
        found: list[tuple[int, int, int]] = []
        while len(found) < count:
            for kind, body in self.frames(sock):
                assert kind == injection.RESULT
                found.append(injection.parse_result(body))
        return found

    def result(self, sock: socket.socket) -> tuple[int, int, int]:
        (one,) = self.results(sock, 1)
        return one

    def turns(self, count: int = 3) -> None:
        for _ in range(count):
            self.loop.turn(0)

    def files(self) -> dict[str, list[int]]:
        return queue_files(self.queue)

    def close(self) -> None:
        for sock in self.socks:
            sock.close()
        self.server.drain(self.loop.stop, keep_incomplete=False)
        self.loop.run()
        self.syncer.close()
        self.loop.close()
        self.writer.close()


@contextmanager
def effective_uid(uid: int) -> Iterator[None]:
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)


def send(sock: socket.socket, frames: list[bytes]) -> None:
    sock.send(b"".join(frames))


def word(kind: bytes, stream: int) -> bytes:
    return injection.render_word(kind, stream)


def part(kind: bytes, stream: int, data: bytes) -> bytes:
    (one,) = injection.render_chunks(kind, stream, data)
    return one
