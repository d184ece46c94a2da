"""Clients of run/enqueue.sock that mean harm, while others inject."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from qsend.core.model import SPLIT, Account
from qsend.formats import frames, injection, lookupwire
from qsend.formats.lookupwire import Question
from qsend.sysio import clock, privilege, unixsocket
from qsend.sysio.fork import fork_child
from tests.injecthome import message_frames, receive, result
from tests.injectservice import effective_uid
from tests.tree.harness import Installation, Tree, until

pytestmark = pytest.mark.root

HOSTILE, HONEST = 64951, 64952
GOOD = b"Fme@elsewhere.example\0Tpostmaster@here.example\0\0"
LATENCY_S = 3.0
"""The bound on one injection, on two busy cores; by itself it takes a few ms."""
MEMORY_BYTES = 48 << 20
STEADY = 30
"""Rounds of a deed before honest clients come, so that it is under way."""

Ready = Callable[[], None]
Deed = Callable[[str, Ready], None]


def part(data: bytes) -> bytes:
    return b"".join(injection.render_chunks(injection.MESSAGE, 1, data))


def forever(once: Callable[[], None], ready: Ready) -> None:
    """Do it again and again, whatever enqueue thinks of it."""
    for count in range(1 << 60):
        if count == STEADY:
            ready()
        with suppress(OSError):
            once()


def garbage(path: str, ready: Ready) -> None:
    def once() -> None:
        with unixsocket.connect_to(path) as sock:
            sock.send(os.urandom(3000))
            sock.recv(100)

    forever(once, ready)


def wrong_frames(path: str, ready: Ready) -> None:
    """What only others may say: a new start, enqueue itself."""
    handover = frames.frame(injection.HANDOVER, b"")
    queued = frames.frame(injection.QUEUED, b"\0" * 8)

    def once() -> None:
        for each in (handover, queued):
            with unixsocket.connect_to(path) as sock:
                sock.send(each)
                assert sock.recv(100) == b""

    forever(once, ready)


def endless(path: str, ready: Ready) -> None:
    """A message without end; not more of it than a test's disk should bear."""
    with unixsocket.connect_to(path) as sock:
        for count in range(1000):
            if count == STEADY:
                ready()
            sock.send(part(b"x" * injection.CHUNK_MAX))
        signal.pause()


def never_complete(path: str, ready: Ready) -> None:
    """As many messages as it may have, none of which goes on."""
    socks = [unixsocket.connect_to(path) for _ in range(100)]
    for sock in socks:
        sock.send(part(b"Subject: and then\n\n"))
    ready()
    signal.pause()


def descriptors(path: str, ready: Ready) -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]

    def once() -> None:
        with unixsocket.connect_to(path) as sock:
            socket.send_fds(sock, [part(b"x")], fds)
            # Not even looked at: the client is dropped.
            while sock.recv(100):
                pass

    forever(once, ready)


def thousand_connections(path: str, ready: Ready) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))
    socks = []
    for _ in range(1000):
        sock = unixsocket.connect_to(path)
        with suppress(BrokenPipeError, ConnectionResetError):  # dropped already
            sock.send(part(b"x"))
        socks.append(sock)
    ready()
    signal.pause()


def dying(path: str, ready: Ready) -> None:
    """All of a message but the word that it is complete."""
    most = b"".join(message_frames(1, b"x" * 50000, GOOD, commit=False))

    def once() -> None:
        with unixsocket.connect_to(path) as sock:
            sock.send(most)

    forever(once, ready)


def flood(path: str, ready: Ready, *packets: bytes) -> None:
    """The same without end, over one connection after another; nothing is read."""
    sock = unixsocket.connect_to(path)
    sock.setblocking(False)

    def once() -> None:
        nonlocal sock
        select.select([], [sock], [], 0.1)
        try:
            for packet in packets:
                sock.send(packet)
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            sock = unixsocket.connect_to(path)
            sock.setblocking(False)

    forever(once, ready)


def never_reading(path: str, ready: Ready) -> None:
    """Questions without end whose answers nobody wants."""
    ping = frames.frame(frames.PING, b"") * 10000
    bad = b"".join(message_frames(7, b"", b"no envelope"))
    flood(path, ready, ping, bad * 100)


DEEDS: tuple[Deed, ...] = (
    garbage, wrong_frames, endless, never_complete, descriptors, thousand_connections,
    dying, never_reading,
)  # fmt: skip


@contextmanager
def attacking(deed: Deed, path: str) -> Iterator[None]:
    """A process of an ordinary uid does it, until the block ends."""
    read, write = os.pipe()

    def run() -> int:
        privilege.drop(Account(uid=HOSTILE, gid=HOSTILE))
        deed(path, lambda: os.close(write))
        return 0

    pid = fork_child(run, (write,), deed.__name__)
    os.close(write)
    try:
        # The end of the pipe, when the deed is under way.
        assert select.select([read], [], [], 20)[0]
        yield
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.close(read)
        with suppress(ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture(scope="module")
def running(installation: Installation) -> Iterator[Tree]:
    with Tree(installation, installation.new_home()) as tree:
        tree.maildir()
        tree.start("--default-delivery", "./Maildir/")
        yield tree
        assert tree.stop() == 0


def inject(path: str, uid: int) -> float:
    """Queue one message; seconds until the answer."""
    begin_mono = clock.mono()
    with effective_uid(uid):
        sock = unixsocket.connect_to(path)
    with sock:
        sock.settimeout(20)
        sock.send(b"".join(message_frames(1, b"Subject: hi\n\n", GOOD)))
        assert result(sock)[:2] == (1, 0)
    return clock.mono() - begin_mono


def unfinished(tree: Tree) -> list[str]:
    """What a message that is not queued may leave in the queue."""
    queue = tree.home / "queue"
    numbers = {path.name for path in (queue / "todo").iterdir()}
    return [
        str(path)
        for name in ("pid", "mess", "intd")
        for path in (queue / name).rglob("*")
        if path.is_file() and path.name not in numbers
    ]


@pytest.mark.parametrize("deed", DEEDS)
def test_hostile_client_costs_others_nothing(running: Tree, deed: Deed) -> None:
    path = str(running.home / "run/enqueue.sock")
    inject(path, HONEST)
    running.wait_for(rb"end msg \d+\n")
    [pid] = running.pids("qmail-queue")
    enqueue = psutil.Process(pid)
    fds, memory = enqueue.num_fds(), enqueue.memory_info().rss
    with attacking(deed, path):
        took_s = [inject(path, uid) for uid in (HONEST, 0, HONEST, HONEST, HONEST)]
        assert max(took_s) < LATENCY_S
        # Descriptors are those of its connections and messages, not more.
        assert enqueue.num_fds() < fds + 500
        assert enqueue.memory_info().rss < memory + MEMORY_BYTES
    running.wait_for(rb"end msg \d+\n", count=5)
    # It keeps each directory that it has once used.
    dirs = len(os.listdir(running.home / "queue")) + SPLIT
    until(lambda: enqueue.num_fds() <= fds + dirs)
    until(lambda: not unfinished(running))
    assert running.pids("qmail-queue") == [pid]


def asking(path: str, ready: Ready) -> None:
    """Questions about oneself without end whose answers nobody wants."""
    question = Question(number=1, local=b"root")
    flood(path, ready, lookupwire.render_question(question, lookupwire.OWN) * 500)


def ask(path: str, uid: int) -> float:
    """Have lookup say whose mail root's is; seconds until the answer."""
    begin_mono = clock.mono()
    with effective_uid(uid):
        sock = unixsocket.connect_to(path)
    with sock:
        sock.settimeout(20)
        [(kind, _)] = frames.split(sock.recv(frames.PACKET_MAX))
        assert kind == frames.HELLO
        sock.send(lookupwire.render_question(Question(number=7, local=b"root")))
        [(kind, body)] = frames.split(sock.recv(frames.PACKET_MAX))
        assert kind == lookupwire.ANSWER
        assert lookupwire.parse_answer(body).number == 7
    return clock.mono() - begin_mono


@pytest.mark.parametrize("deed", [garbage, descriptors, thousand_connections, asking])
def test_hostile_client_of_lookup_costs_others_nothing(
    running: Tree, deed: Deed
) -> None:
    path = str(running.home / "run/lookup.sock")
    [pid] = running.pids("qmail-lookup")
    lookup = psutil.Process(pid)
    ask(path, 0)
    fds, memory = lookup.num_fds(), lookup.memory_info().rss
    with attacking(deed, path):
        assert max(ask(path, 0) for _ in range(5)) < LATENCY_S
        assert inject(str(running.home / "run/enqueue.sock"), HONEST) < LATENCY_S
        running.wait_for(rb"end msg \d+\n")
        assert lookup.num_fds() < fds + 100
        assert lookup.memory_info().rss < memory + MEMORY_BYTES
    until(lambda: lookup.num_fds() <= fds)
    assert running.pids("qmail-lookup") == [pid]


def test_control_socket_refuses_ordinary_users(running: Tree) -> None:
    path = running.home / "run/control.sock"
    for uid in (HOSTILE, 65534):
        with effective_uid(uid), pytest.raises(PermissionError):
            unixsocket.connect_to(str(path))
        done = running.program("qsend", "status", uid=uid)
        assert done.returncode not in (0, None)
        assert not done.stdout
    assert running.program("qsend", "status", uid=0).returncode == 0


def test_control_socket_refuses_whom_its_mode_lets_in(running: Tree) -> None:
    path: Path = running.home / "run/control.sock"
    before = path.stat().st_mode
    path.chmod(0o666)
    try:
        with effective_uid(HOSTILE):
            sock = unixsocket.connect_to(str(path))
        with sock:
            sock.settimeout(20)
            with suppress(BrokenPipeError):
                sock.send(b'{"do": "stop", "all": true}')
            assert receive(sock) == []
    finally:
        path.chmod(before & 0o7777)
    assert running.program("qsend", "status", uid=0).returncode == 0
