"""A whole tree of fake children under the real start, for its tests.

Every fake tells what happens to it in lines of JSON: what it found at its boot,
whom it met over its sockets, what start said. It greets each peer by name, so that
`met` proves that both ends of a socket are where they belong.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from qsend.core.errors import Fatal
from qsend.core.startoptions import StartOptions
from qsend.procs.start import Main, main
from qsend.sysio import queuemaker
from qsend.sysio.accounts import load_accounts
from qsend.sysio.boot import Boot
from qsend.sysio.endpoint import Endpoint
from qsend.sysio.loop import Loop
from qsend.sysio.parent import Parent

DEADLINE_S = 20.0
ORDER = ["lspawn", "enqueue", "lookup", "clean", "remote0", "remote1", "send"]
"""The roles of the fake tree, as they are forked."""
NOT_PEERS = ("start", "listen", "control")
Event = dict[str, object]


class Fake:
    """One fake child."""

    def __init__(self, boot: Boot) -> None:
        self.boot = boot
        self.home = Path(boot.home)
        fds = sorted(map(int, os.listdir("/proc/self/fd")))
        self.fds = [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")]
        self.loop = Loop()
        self.hangs = self.behaviour("hangs")
        self.code = 0

    def behaviour(self, name: str) -> bool:
        return (self.home / f"{self.boot.role}.{name}").exists()

    def say(self, what: str, **more: object) -> None:
        told = {"role": self.boot.role, "pid": os.getpid(), "what": what, **more}
        try:
            fd = os.open(self.home / "events", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return  # the test is over
        # Shorter than PIPE_BUF: lines of several children do not mix.
        os.write(fd, json.dumps(told).encode() + b"\n")
        os.close(fd)

    def run(self) -> int:
        self.say(
            "boot",
            fds=self.fds,
            want=sorted(sock.fileno() for sock in self.boot.socks.values()),
            socks=sorted(self.boot.socks),
            generation=self.boot.controls.generation,
            limit=self.boot.controls.timeoutremote,
            cwd=os.getcwd(),
            null=os.readlink("/proc/self/fd/0"),
            same_log=os.readlink("/proc/self/fd/1") == os.readlink("/proc/self/fd/2"),
            leads=os.getsid(0) == os.getpid(),
        )
        if self.behaviour("fails"):
            raise Fatal("cannot boot")
        parent = Parent(
            self.loop,
            self.boot.socks["start"],
            on_close=self.closed,
            on_controls=self.controls,
            on_peer=self.meet,
            on_signal=self.signalled if self.boot.role == "send" else None,
            on_detach=self.detached,
            on_ping=lambda: f"{self.boot.role} is fine".encode(),
        )
        for name, sock in self.boot.socks.items():
            if name not in NOT_PEERS:
                self.meet(name, sock)
        self.loop.on_signal(
            signal.SIGUSR1, lambda: parent.ask((self.home / "ask").read_bytes())
        )
        self.loop.on_signal(signal.SIGUSR2, self.loop.stop)
        parent.ready()
        self.say("ready")
        self.loop.run()
        return self.code

    def meet(self, name: str, sock: socket.socket) -> None:
        if name.startswith("classic-"):
            self.say("met", name=name)
            sock.close()
            return
        endpoint = Endpoint(
            self.loop,
            sock,
            lambda kind, body, fds: self.say("met", name=name, says=body.decode()),
            lambda reason: self.say("lost", name=name),
        )
        role = self.boot.role.encode()
        endpoint.send(len(role).to_bytes(4, "big") + b"g" + role)

    def controls(self, generation: int, files: Mapping[str, bytes]) -> None:
        self.say("controls", generation=generation, files=sorted(files))

    def signalled(self, word: bytes) -> None:
        self.say("signal", word=word.decode())
        if word == b"term" and not self.hangs:
            self.loop.stop()

    def detached(self) -> None:
        self.say("detached")
        self.hangs = True

    def closed(self) -> None:
        self.say("closed")
        if not self.hangs:
            self.loop.stop()


def run_fake(boot: Boot) -> int:
    return Fake(boot).run()


KINDS = ("enqueue", "lookup", "clean", "lspawn", "remote", "send")
FAKES: Mapping[str, Main] = dict.fromkeys(KINDS, run_fake)


def make_home(home: Path) -> None:
    for name in ("control", "queue", "run"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "control/me").write_text("mx.example\n")
    queuemaker.create(str(home), load_accounts(single_user=True))


_SPAWNED = "import sys; from tests.procs.family import serve; serve(*sys.argv[1:])"


def serve(told: str, given: str) -> NoReturn:
    """Be start, with fake children; both arguments are JSON from Tree."""
    facts = json.loads(told)
    write, lent = facts["write"], facts["lent"]
    os.dup2(write, 1)
    os.close(write)
    # They come from 3 on: first up, out of the way, and then down.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in lent]
    for fd in lent:
        os.close(fd)
    for number, fd in enumerate(high):
        os.dup2(fd, 3 + number)
        os.close(fd)
    os.environ.update(facts["environ"])
    if lent:
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDS"] = str(len(lent))
    options = StartOptions(single_user=True, remotes=2, **json.loads(given))
    os._exit(main(options, FAKES.__getitem__))


class Tree:
    """A running start, its log and what its children said."""

    def __init__(
        self,
        home: Path,
        *,
        pace: float = 0.2,
        environ: Mapping[str, str] | None = None,
        lent: Sequence[socket.socket] = (),
        **options: str,
    ) -> None:
        """`environ` and the sockets `lent` are what a service manager gives."""
        self.home = home
        self.seen: list[Event] = []
        self.log = b""
        self.code: int | None = None
        os.mkfifo(home / "events")
        # Read and write: it never ends while nobody happens to write.
        self._events = os.open(home / "events", os.O_RDWR | os.O_NONBLOCK)
        self._unread = b""
        self._log, write = os.pipe()
        lent_fds = [sock.fileno() for sock in lent]
        # A process of its own from the first: what tests have left in this one (an
        # object whose end closes a number, a thread) is none of start's business.
        for fd in (write, *lent_fds):
            os.set_inheritable(fd, True)
        told = {"write": write, "lent": lent_fds, "environ": dict(environ or {})}
        given = {"home": str(home), "pace": pace, **options}
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", _SPAWNED, json.dumps(told), json.dumps(given)],
            os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            setsigmask=(),
        )
        for fd in lent_fds:
            os.set_inheritable(fd, False)
        os.close(write)

    def events(self) -> Iterator[Event]:
        """Events as they come, from the first that nobody asked for yet."""
        poller = select.poll()
        poller.register(self._events, select.POLLIN)
        while True:
            while b"\n" not in self._unread:
                assert poller.poll(DEADLINE_S * 1000), self.seen
                self._unread += os.read(self._events, 65536)
            line, self._unread = self._unread.split(b"\n", 1)
            event = json.loads(line)
            self.seen.append(event)
            yield event

    def wait(self, what: str, count: int = 1, **more: object) -> list[Event]:
        """The next `count` events that match; earlier ones are consumed."""
        found: list[Event] = []
        if count == 0:
            return found
        for event in self.events():
            if event["what"] == what and more.items() <= event.items():
                found.append(event)
                if len(found) == count:
                    return found
        raise AssertionError("unreachable")

    def wait_met(self, wanted: set[tuple[int, str]]) -> None:
        """Wait until each (pid, peer) has met, whenever that was."""
        while not wanted <= {
            (e["pid"], e["name"]) for e in self.seen if e["what"] == "met"
        }:
            next(self.events())

    def up(self, count: int = 7) -> dict[str, int]:
        """Wait for all to serve; role to pid."""
        return {str(e["role"]): self.pid_of(e) for e in self.wait("ready", count)}

    @staticmethod
    def pid_of(event: Event) -> int:
        pid = event["pid"]
        assert isinstance(pid, int)
        return pid

    def ask(self, send: int, word: bytes) -> None:
        (self.home / "ask").write_bytes(word)
        os.kill(send, signal.SIGUSR1)

    def end(self) -> int:
        """Wait for start to exit; its exit code."""
        if self.code is None:
            self.log += b"".join(iter(lambda: os.read(self._log, 65536), b""))
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait_log(self, want: bytes) -> None:
        """Read the log until it has `want`."""
        while want not in self.log:
            chunk = os.read(self._log, 65536)
            assert chunk, self.log
            self.log += chunk

    def close(self) -> None:
        """Leave no process and no descriptor behind."""
        if self.code is None:
            os.kill(self.pid, signal.SIGTERM)
            fd = os.pidfd_open(self.pid)
            ended = select.select([fd], [], [], DEADLINE_S)[0]
            os.close(fd)
            if not ended:
                os.kill(self.pid, signal.SIGKILL)
            self._kill_strays()
            self.end()
        os.close(self._log)
        os.close(self._events)

    def _kill_strays(self) -> None:
        """End the children of a start that did not, or that was killed."""
        while select.select([self._events], [], [], 0)[0]:
            self._unread += os.read(self._events, 65536)
        events = [*self.seen, *map(json.loads, self._unread.splitlines())]
        for pid in {self.pid_of(event) for event in events}:
            try:
                # Each is its own session; a stranger with its number is not.
                if os.getsid(pid) == pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def gone(pid: int) -> bool:
    """Whether a process has ended, once it had time to."""
    return until(lambda: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(holds: Callable[[], bool]) -> bool:
    """Whether something becomes true before the deadline."""
    deadline_mono = time.monotonic() + DEADLINE_S  # noqa: TID251
    while not holds():
        if time.monotonic() > deadline_mono:  # noqa: TID251
            return False
        time.sleep(0.005)
    return True


Opener = Callable[..., Tree]
"""The fixture `tree`: starts one, with options of Tree."""


def by_role(events: list[Event]) -> dict[object, Event]:
    return {event["role"]: event for event in events}
