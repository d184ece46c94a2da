"""Processes that run out of descriptors, memory or processes: what cannot be done now
is refused or deferred, nobody spins or is held, and all goes on when there is more."""

from __future__ import annotations

import os
import poplib
import signal
import smtplib
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from qsend.formats.netstring import render
from tests.pop.conftest import PASSWORD, PopTree
from tests.pop.conftest import mailbox as mailbox
from tests.pop.conftest import pem as pem
from tests.pop.conftest import unstarted as unstarted
from tests.ports import free_ports
from tests.smtpsink import Sink
from tests.tree.cgroups import Group, own_group
from tests.tree.harness import until
from tests.tree.numbered import Bench, cpu_s, drain, recover

pytestmark = [pytest.mark.root, pytest.mark.slow]

HERE = Path(__file__).parent
KINDS = (
    "queue", "send", "clean", "lookup", "lspawn", "local", "remote", "smtpd", "qmtpd",
    "runner", "pop3d", "login",
)  # fmt: skip
TOLD = {
    "queue": b"Too many open files", "send": b"Too many open files",
    "lspawn": b"deferral: Unable_to_open_the_message",
    "local": b"deferral: Too_many_files_are_open", "remote": b"deferral: ",
    "runner": b"no descriptors left",
}  # fmt: skip
"""What is said of it where nobody is refused. clean has all directories open after some
messages, and needs no more."""
NEVER = (b"Traceback", b"is held")
CPU_S = 0.5
"""Of the whole tree, for the work of one turn; one that spins takes twice that."""
FAST_BRAKE = (
    "from qsend.core.startoptions import StartOptions;"
    "StartOptions.__init__.__kwdefaults__['pace'] = 0.02"
)
CLIENT_S = 4.0
SQUEEZED_S = 1.0
"""How long there is nothing to be had."""


class Pop(poplib.POP3):
    """A client that does not keep its socket when nobody greets it."""

    def _getresp(self) -> bytes:
        try:
            return super()._getresp()  # type: ignore[misc,no-any-return]
        except BaseException:
            self.close()
            raise


@dataclass
class Squeezed(Bench):
    """A bench whose processes run out of things on demand, with all its entrances."""

    place: Path = Path()
    ports: dict[str, int] = field(default_factory=dict)
    sink: Sink = field(default_factory=Sink)
    mailbox: str = ""

    def start(self, more: str = "") -> None:
        patch = f"PLACE = {str(self.place)!r}\n{(HERE / 'squeezed.py').read_text()}"
        self.tree.start(patch=f"{patch}\n{more}")

    def order(self, word: str, pids: Sequence[int]) -> None:
        """Tell processes what they are to have no more of; "" gives it back."""
        (self.place / "squeeze").write_text(word.ljust(20))
        done = self.place / "done"
        wanted = done.stat().st_size + len(pids)
        for pid in pids:
            os.kill(pid, signal.SIGUSR1)
        until(lambda: done.stat().st_size >= wanted)

    def give_back(self) -> None:
        """All have all again, those that were forked meanwhile too."""
        pids = [pid for kind in KINDS for pid in self.tree.pids(f"qmail-{kind}")]
        self.order("", pids)

    @contextmanager
    def lacking(self, word: str, pids: Sequence[int]) -> Iterator[None]:
        """These processes have no more of it; "files" is what the machine has none of,
        for them and all that they fork."""
        if word == "files":
            with without_files(pids):
                yield
            return
        self.order(word, pids)
        try:
            yield
        finally:
            self.give_back()

    def has_said(self, told: bytes, mark: int) -> bool:
        """Whether the log has it behind that place."""
        self.tree.watch(0.1)
        return told in self.tree.log[mark:]

    def turn(self, word: str, *kinds: str, told: bytes = b"") -> None:
        """Clients come while the processes of these kinds have no more of it, and
        until that is told."""
        pids = [pid for kind in kinds for pid in self.tree.pids(f"qmail-{kind}")]
        with ExitStack() as lack:
            lack.enter_context(self.lacking(word, pids))
            began_cpu_s, mark = cpu_s(self.tree), len(self.tree.log)
            with self.work():
                drain(self.tree, SQUEEZED_S)
                assert cpu_s(self.tree) - began_cpu_s < CPU_S, kinds
                until(lambda: self.has_said(told, mark))
                lack.close()

    def number(self) -> str:
        self.seen += 1
        return f"n{self.seen}n"

    def by_smtp(self, recip: str) -> None:
        number = self.number()
        text = f"Subject: {number}\r\n\r\n" + "x" * 20_000 + "\r\n"
        try:
            with smtplib.SMTP("127.0.0.1", self.ports["smtp"], "c", CLIENT_S) as client:
                client.sendmail("me@here.example", recip, text)
        except (OSError, smtplib.SMTPException):
            return
        if "far" not in recip:
            self.accepted.add(number)

    def by_qmtp(self) -> None:
        number = self.number()
        package = render(b"\nSubject: %b\n\nx\n" % number.encode())
        package += render(b"me@here.example") + render(render(b"box@here.example"))
        try:
            with socket.create_connection(
                ("127.0.0.1", self.ports["qmtp"]), CLIENT_S
            ) as sock:
                sock.sendall(package)
                answer = sock.recv(1000)
        except OSError:
            return
        if answer.partition(b":")[2].startswith(b"K"):
            self.accepted.add(number)

    def by_pop(self) -> bool:
        try:
            client = Pop("127.0.0.1", self.ports["pop3"], timeout=CLIENT_S)
        except (OSError, poplib.error_proto):
            return False
        client.encoding = "UTF-8"
        try:
            client.user(self.mailbox)
            client.pass_(PASSWORD)
            client.stat()
        except (OSError, poplib.error_proto):
            return False
        else:
            return True
        finally:
            client.close()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Something of everything, at the same time; it may go on after the block."""
        todo: list[Callable[[], object]] = [
            self.inject,
            self.by_qmtp,
            self.by_pop,
            lambda: self.by_smtp("box@here.example"),
            lambda: self.by_smtp("far@there.example"),
        ]
        with ThreadPoolExecutor(len(todo)) as pool:
            running = [pool.submit(each) for each in todo]
            yield
            while not all(each.done() for each in running):
                drain(self.tree, 0.05)
        for each in running:
            each.result()


FILES = ",".join(
    f"?{name}" for name in (
        "open", "openat", "openat2", "socket", "socketpair", "accept", "accept4",
        "pipe", "pipe2", "memfd_create", "epoll_create1", "eventfd2", "pidfd_open",
        "inotify_init1",
    )
)  # fmt: skip
"""What makes an open file, and gets ENFILE where the machine has no room for one."""


@contextmanager
def without_files(pids: Sequence[int]) -> Iterator[None]:
    """ENFILE for each call of these processes that would make an open file."""
    command = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={FILES}"]
    command += ["-e", f"inject={FILES}:error=ENFILE"]
    command += [f"--attach={pid}" for pid in pids]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
        try:
            until(lambda: all(is_traced(pid) for pid in pids))
            yield
        finally:
            # It lets them go on.
            strace.terminate()


def is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


@pytest.fixture
def bench(unstarted: PopTree, mailbox: str, open_tmp: Path) -> Iterator[Squeezed]:
    place = open_tmp / "place"
    place.mkdir()
    for name in ("squeeze", "done"):
        (place / name).touch()
    tree = unstarted.tree
    smtp, qmtp = free_ports(2)
    tree.control("smtplisten", f"127.0.0.1:{smtp}\n")
    tree.control("qmtplisten", f"127.0.0.1:{qmtp}\n")
    tree.control("tcp.smtp", '127.:allow,RELAYCLIENT=""\n')
    program = tree.home / "bin/qmail-queue"
    tree.control("tcp.qmtp", f'127.:allow,RELAYCLIENT="",QMAILQUEUE="{program}"\n')
    for name in ("smtp", "qmtp"):
        tree.run("tcprules", name)
    with Sink() as sink:
        tree.control("smtproutes", f":127.0.0.1:{sink.port}\n")
        ports = {"smtp": smtp, "qmtp": qmtp, "pop3": unstarted.port}
        yield Squeezed(tree, place=place, ports=ports, sink=sink, mailbox=mailbox)
        assert tree.stop() == 0


def settle(bench: Squeezed) -> None:
    """Everything is as it should be, for all kinds of work."""
    recover(bench)
    before = len(bench.accepted)
    with bench.work():
        pass
    assert bench.by_pop()
    recover(bench)
    assert len(bench.accepted) == before + 5


def test_process_without_descriptors_defers_and_goes_on(bench: Squeezed) -> None:
    tree = bench.tree
    bench.start()
    settle(bench)
    before = {kind: tree.pids(f"qmail-{kind}") for kind in KINDS}
    for kind in KINDS:
        bench.turn("descriptors", kind, told=TOLD.get(kind, b""))
        settle(bench)
        assert tree.pids(f"qmail-{kind}") == before[kind], kind
    for word in (*NEVER, b"lost", b"crashed", b"alert"):
        assert word not in tree.log
    tree.wait_empty()


def test_machine_without_room_for_files_is_waited_out(bench: Squeezed) -> None:
    tree = bench.tree
    bench.start()
    settle(bench)
    before = {kind: tree.pids(f"qmail-{kind}") for kind in KINDS}
    full = b"Too many open files in system"
    told = dict.fromkeys(("queue", "send", "runner", "login"), full)
    told["lspawn"] = TOLD["lspawn"]
    told["local"] = full.replace(b" ", b"_")
    for kind in KINDS:
        bench.turn("files", kind, told=told.get(kind, b""))
        settle(bench)
    bench.turn("files", *KINDS)
    settle(bench)
    assert {kind: tree.pids(f"qmail-{kind}") for kind in KINDS} == before
    for word in (*NEVER, b"lost", b"crashed", b"alert"):
        assert word not in tree.log
    tree.wait_empty()


def test_process_without_memory_ends_at_most_and_nothing_is_lost(
    bench: Squeezed,
) -> None:
    tree = bench.tree
    bench.start()
    settle(bench)
    for kind in KINDS:
        bench.turn("memory", kind)
        settle(bench)
    assert not any(word in tree.log for word in NEVER)
    tree.wait_empty()


def test_processes_without_threads_defer_and_go_on(bench: Squeezed) -> None:
    tree = bench.tree
    bench.start()
    # Before the first message they have none.
    bench.turn("processes", *KINDS, told=b"no thread is to be had")
    settle(bench)
    assert not any(word in tree.log for word in (*NEVER, b"lost", b"alert"))
    tree.wait_empty()


def test_process_alone_without_threads_defers_and_goes_on(bench: Squeezed) -> None:
    tree = bench.tree
    bench.start()
    # Without those of enqueue there would be no mail for the others.
    for kind in ("remote", "lspawn", "send"):
        bench.turn("processes", kind)
        settle(bench)
    assert not any(word in tree.log for word in (*NEVER, b"lost", b"alert"))
    tree.wait_empty()


def test_full_process_table_is_waited_out(bench: Squeezed) -> None:
    tree = bench.tree
    bench.start(FAST_BRAKE)
    settle(bench)
    with own_group("pids", tree) as group:
        for process in tree.family():
            group.take(process.pid)
        # Not even for one that takes the place of another.
        group.write("pids.max", int(group.read("pids.current")) - 1)
        assert bench.inject() == 0
        # The program of later.
        tree.wait_for(rb"deferral: (There_is_no_thread|Unable_to_run)")
        [lookup] = tree.pids("qmail-lookup")
        os.kill(lookup, signal.SIGKILL)
        failed = rb"unable to start qmail-lookup: cannot fork: Resource temporarily"
        tree.wait_for(failed, 7)
        group.write("pids.max", "max")
        settle(bench)
        assert not any(word in tree.log for word in NEVER)
        tree.wait_empty()
        assert tree.stop() == 0
    bench.start()


HOG = """
import os, sys
group, pid = sys.argv[1:]
with open(f"{group}/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
held = [b"x" * (100 << 20)]
print(flush=True)
sys.stdin.readline()
while os.path.exists(f"/proc/{pid}"):
    held.append(b"x" * 65536)
"""
"""Takes memory until a process has gone. Should it not see that soon enough it goes
too, which has more than any of the tree."""
ROOM_BYTES = 4 << 20


def kill_for_memory(group: Group, pid: int) -> None:
    """Have the kernel end a process for want of memory in its group."""
    Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", HOG, str(group.path), str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as hog:
        assert hog.stdout is not None
        hog.stdout.readline()
        group.limit_memory(group.memory_bytes + ROOM_BYTES)
        try:
            hog.communicate(b"\n", timeout=30)
        finally:
            group.limit_memory(None)


def test_process_that_the_kernel_kills_for_memory_is_replaced(bench: Squeezed) -> None:
    tree = bench.tree
    bench.start(FAST_BRAKE)
    settle(bench)
    with own_group("memory", tree) as group:
        for process in tree.family():
            group.take(process.pid)
        for kind in KINDS:
            # The others that are there may be idle, and nobody misses them.
            [pid, *_] = tree.pids(f"qmail-{kind}")
            with bench.work():
                kill_for_memory(group, pid)
            lost = f"child {pid} lost" if kind == "local" else f"lost qmail-{kind} "
            tree.wait_for(lost.encode())
            settle(bench)
        assert not any(word in tree.log for word in NEVER)
        # A message that enqueue was writing is left to the sweep.
        until(lambda: not tree.ask("queue"))
        assert tree.stop() == 0
    bench.start()
