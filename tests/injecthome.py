"""A home with a queue, and a real enqueue process on it, for tests."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from qsend.core.model import Account, Accounts, MessId
from qsend.formats import injection, startwire
from qsend.formats.frames import frame, split
from qsend.sysio.endpoint import pair

ROOT = Path(__file__).parents[1]
DEADLINE_S = 10.0
FIRST_UID = 61000

_RUN_ENQUEUE = """
import json, socket, sys
from qsend.core.model import Account, Accounts
from qsend.formats.control import parse_controls
from qsend.procs import enqueue
from qsend.sysio.boot import Boot
told = json.loads(sys.argv[1])
accounts = {name: Account(uid=u, gid=g) for name, (u, g) in told["accounts"].items()}
sys.exit(enqueue.main(Boot(
    role="enqueue", home=told["home"], single_user=False,
    accounts=Accounts(**accounts), default_delivery=b"",
    controls=parse_controls({k: v.encode() for k, v in told["controls"].items()}),
    socks={k: socket.socket(fileno=fd) for k, fd in told["socks"].items()},
)))
"""
_RUN_QUEUE = (
    "import sys; from qsend.cli.qmail_queue import main; sys.exit(main(sys.argv[1:]))"
)


def one_account() -> Accounts:
    """All roles are the caller."""
    me = Account(uid=os.getuid(), gid=os.getgid())
    return Accounts(**{field.name: me for field in fields(Accounts)})


def many_accounts() -> Accounts:
    """Every role has a uid of its own (root needed)."""
    names = [field.name for field in fields(Accounts) if field.name != "root"]
    made = {
        name: Account(uid=FIRST_UID + n, gid=FIRST_UID) for n, name in enumerate(names)
    }
    return Accounts(**made, root=Account(uid=0, gid=FIRST_UID))


def make_queue(home: Path, owner: Account) -> Path:
    """queue/ with what injection touches, owned as qmail's, and run/."""
    home.mkdir(exist_ok=True)
    home.chmod(0o755)
    (home / "run").mkdir()
    (home / "run").chmod(0o755)
    queue = home / "queue"
    names = ["", "pid", "intd", "todo", "lock", "mess"]
    for name in [*names, *(f"mess/{n}" for n in range(23))]:
        (queue / name).mkdir()
        (queue / name).chmod(0o750)
    os.mkfifo(queue / "lock/trigger")
    if os.getuid() == 0:
        for path in [queue, *queue.rglob("*")]:
            os.chown(path, owner.uid, owner.gid)
    return queue


def queue_files(queue: Path) -> dict[str, list[int]]:
    """The numbers found in each of pid, mess, intd, todo; pid names as they are."""
    found = {}
    for name in ("pid", "mess", "intd", "todo"):
        paths = (queue / name).rglob("*")
        found[name] = sorted(
            int(path.name) if path.name.isdigit() else -1
            for path in paths
            if path.is_file()
        )
    return found


EMPTY: dict[str, list[int]] = {"pid": [], "mess": [], "intd": [], "todo": []}


class EnqueueHome:
    """Owns a home, the sockets of start and send, and the process."""

    def __init__(
        self,
        home: Path,
        accounts: Accounts,
        controls: Mapping[str, str] | None = None,
        *,
        has_queue: bool = False,
    ) -> None:
        self.home = home
        self.accounts = accounts
        self.controls = {"me": "test.example", **(controls or {})}
        self.queue = home / "queue"
        if not has_queue:
            make_queue(home, accounts.qmailq)
        self.path = str(home / "run" / "enqueue.sock")
        self.listen = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = os.open(home / "run", os.O_PATH)
        self.listen.bind(f"/proc/self/fd/{fd}/enqueue.sock")
        os.close(fd)
        os.chmod(self.path, 0o666)
        self.listen.listen(1000)
        self._socks: list[socket.socket] = [self.listen]
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, *wrapper: str, listen: socket.socket | None = None
    ) -> subprocess.Popen[bytes]:
        """Run enqueue and wait until it serves; `wrapper` is put before it."""
        self.start_sock, start = pair()
        self.send_sock, send = pair()
        self._socks += [self.start_sock, self.send_sock]
        socks = {"start": start, "send": send, "listen": listen or self.listen}
        told = {
            "home": str(self.home),
            "accounts": {
                field.name: (
                    getattr(self.accounts, field.name).uid,
                    getattr(self.accounts, field.name).gid,
                )
                for field in fields(Accounts)
            },
            "controls": self.controls,
            "socks": {name: sock.fileno() for name, sock in socks.items()},
        }
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", _RUN_ENQUEUE, json.dumps(told)],
            pass_fds=[sock.fileno() for sock in socks.values()],
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        self._processes.append(process)
        start.close()
        send.close()
        assert receive(self.start_sock) == [(startwire.READY, b"")]
        return process

    def tell(self, *frames: bytes) -> None:
        """Say something as start."""
        self.start_sock.send(b"".join(frames))

    def connect(self) -> socket.socket:
        """A client's connection."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(DEADLINE_S)
        fd = os.open(self.home / "run", os.O_PATH)
        try:
            sock.connect(f"/proc/self/fd/{fd}/enqueue.sock")
        finally:
            os.close(fd)
        self._socks.append(sock)
        return sock

    def queue_program(
        self,
        message: bytes,
        envelope: bytes,
        *,
        uid: int | None = None,
        wrapper: tuple[str, ...] = (),
    ) -> int:
        """Exit code of our qmail-queue with this input; it must print nothing."""
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", _RUN_QUEUE],
            stdin=subprocess.PIPE,
            stdout=reading,
            stderr=subprocess.PIPE,
            env={**os.environ, "QSEND_HOME": str(self.home), "PYTHONPATH": str(ROOT)},
            cwd="/",
            user=uid,
            group=uid,
            extra_groups=[] if uid is not None else None,
        )
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            assert process.stdin is not None
            try:
                process.stdin.write(message)
                process.stdin.close()
                pipe.write(envelope)
            except BrokenPipeError:
                pass  # it gave up early; the exit code says why
        assert process.stderr is not None
        printed = process.stderr.read()
        process.stderr.close()
        assert printed == b""
        return process.wait(DEADLINE_S)

    def queued(self) -> list[MessId]:
        """The next QUEUED notification that send gets."""
        ((kind, body),) = receive(self.send_sock)
        assert kind == injection.QUEUED
        return injection.parse_queued(body)

    def close(self) -> None:
        """Kill what runs, close what is open."""
        for process in self._processes:
            process.kill()
            process.wait(DEADLINE_S)
            if process.stderr is not None:
                process.stderr.close()
        for sock in self._socks:
            sock.close()


def receive(sock: socket.socket) -> list[tuple[bytes, bytes]]:
    """The frames of the next packet; [] when the peer has closed."""
    assert select.select([sock], [], [], DEADLINE_S)[0], "no answer"
    while True:
        try:
            return list(split(sock.recv(1 << 16)))
        except ConnectionResetError:
            continue


def result(sock: socket.socket) -> tuple[int, int, int]:
    """The next RESULT: stream, exit code, qp."""
    ((kind, body),) = receive(sock)
    assert kind == injection.RESULT
    return injection.parse_result(body)


def message_frames(
    stream: int, message: bytes, envelope: bytes, *, commit: bool = True
) -> list[bytes]:
    """The frames of a whole message."""
    parts = [
        *injection.render_chunks(injection.MESSAGE, stream, message),
        *injection.render_chunks(injection.ENVELOPE, stream, envelope),
    ]
    return [*parts, injection.render_word(injection.COMMIT, stream)][
        : None if commit else -1
    ]


DETACH = frame(startwire.DETACH, b"")
