"""Real lookup and lspawn processes under a test that plays start and send.

`Tree` makes a home with a queue and users/cdb, forks the two processes, and talks
to them as start and send do. The local children run `child_main` below: what it
does with a delivery is said by the delivery's ext.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cdblib

from qsend.core.model import Account, Accounts, Cause, DelId, Letter
from qsend.formats import delivery, frames, startwire
from qsend.formats.control import Controls
from qsend.formats.delivery import ChildDelivery, LocalDelivery, Report
from qsend.procs import lookup, lspawn
from qsend.sysio.boot import Boot, ChildBoot
from qsend.sysio.endpoint import pair
from qsend.sysio.fork import fork_child

DEADLINE_S = 20.0
Limit = Callable[[], int]
"""Gives RLIMIT_NOFILE; called in the process that gets it."""
QUEUE_GID = 67001
ALIAS = Account(uid=67002, gid=67003)


def made_accounts() -> Accounts:
    """Numbers no account of a machine is likely to have."""
    made = {
        field.name: Account(uid=67100 + at, gid=67003)
        for at, field in enumerate(fields(Accounts))
    }
    root = Account(uid=0, gid=QUEUE_GID)
    return replace(Accounts(**made), alias=ALIAS, root=root)


def child_main(boot: ChildBoot) -> int:
    """A local child that obeys the ext of each delivery until its line closes."""
    held: list[ChildDelivery] = []
    while True:
        packet, fds, _flags, _addr = socket.recv_fds(
            boot.sock, frames.PACKET_MAX, frames.FDS_MAX
        )
        if not packet:
            return 0
        messages = deque(fds)
        for _kind, body in frames.split(packet):
            given = delivery.parse_child(body)
            _obey(boot, given, messages.popleft(), held)


def _obey(
    boot: ChildBoot, given: ChildDelivery, message: int, held: list[ChildDelivery]
) -> None:
    word, _, rest = given.user.ext.partition(b"=")
    match word:
        case b"facts":
            _say(boot, given.delid, json.dumps(_facts(boot, given, message)).encode())
        case b"hang":
            held.append(given)
        case b"release":
            for each in held:
                _say(boot, each.delid, b"released")
            held.clear()
            _say(boot, given.delid, b"done")
        case b"unreachable":
            _say(boot, given.delid, b"", cause=Cause.UNREACHABLE)
        case b"bad":
            _misbehave(boot, given.delid, rest)
        case _:
            _say(boot, given.delid, b"ok")
    os.close(message)


def _misbehave(boot: ChildBoot, delid: DelId, how: bytes) -> None:
    word, _, number = how.partition(b"=")
    match word:
        case b"twice":
            _say(boot, delid, b"one")
            _say(boot, delid, b"two")
        case b"forge":
            _say(boot, DelId(int(number)), b"forged")
        case b"long":
            _say(boot, delid, b"x" * int(number), limit=10000)
        case b"noise":
            boot.sock.send(b"noise")
        case b"crash":
            os.kill(os.getpid(), signal.SIGTERM)
        case b"last-words":
            _say(boot, delid, b"last words")
            os._exit(0)
        case _:
            raise AssertionError(how)


def _say(
    boot: ChildBoot,
    delid: DelId,
    text: bytes,
    *,
    cause: Cause = Cause.NORMAL,
    limit: int = delivery.REPORT_LOCAL_MAX,
) -> None:
    report = Report(delid=delid, letter=Letter.SUCCESS, text=text, cause=cause)
    boot.sock.send(delivery.render_report(report, limit))


def _facts(boot: ChildBoot, given: ChildDelivery, message: int) -> dict[str, object]:
    umask = os.umask(0o777)
    os.umask(umask)
    listed = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            listed[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": os.getgroups(),
        "fds": sorted(set(listed) - {boot.sock.fileno(), message}),
        "umask": umask,
        "no_new_privs": status["NoNewPrivs"],
        "proc_owner": os.stat("/proc/self/status").st_uid,
        "handlers": [
            number
            for number in range(1, signal.NSIG)
            if number not in (signal.SIGPIPE, signal.SIGXFSZ)
            and signal.getsignal(number) not in (signal.SIG_DFL, None)
        ],
        "message": os.pread(message, 100, 0).decode(),
        "sender": given.sender.decode(),
        "local": given.local.decode(),
        "domain": given.domain.decode(),
        "home": given.user.home.decode(),
        "default_delivery": boot.default_delivery.decode(),
        "qsend_home": boot.home,
        "patrn": boot.controls.patrn,
    }


@dataclass(frozen=True, kw_only=True)
class Told:
    """A report as send sees it."""

    delid: int
    letter: Letter
    text: bytes
    cause: Cause


class Tree:
    """The two processes and the test's ends of their lines."""

    def __init__(
        self, home: Path, controls: Controls, accounts: Accounts, nofile: Limit | None
    ) -> None:
        self.home = home
        self.nofile = nofile
        self.slots = 0
        self.controls = controls
        self.accounts = accounts
        self.pids: dict[str, int] = {}
        self.start: dict[str, socket.socket] = {}
        self.frames: deque[tuple[bytes, bytes]] = deque()
        self._next_delid = 0
        asked, asks = pair()
        self.send, sends = pair()
        self.fork("lookup", {"lspawn": asked})
        self.fork("lspawn", {"lookup": asks, "send": sends})

    def fork(self, role: str, socks: Mapping[str, socket.socket]) -> None:
        ours, theirs = pair()
        boot = Boot(
            role=role,
            home=str(self.home),
            single_user=False,
            accounts=self.accounts,
            controls=self.controls,
            default_delivery=b"./Default",
            socks={"start": theirs, **socks},
        )

        def run() -> int:
            if self.nofile is not None:
                limit = self.nofile()
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            if role == "lookup":
                return lookup.main(boot)
            return lspawn.main(boot, child_main)

        self.pids[role] = fork_child(
            run, [sock.fileno() for sock in boot.socks.values()], role
        )
        for sock in boot.socks.values():
            sock.close()
        self.start[role] = ours
        assert b"".join(kind for kind, _ in self.read(ours)) == startwire.READY

    def read(self, sock: socket.socket) -> list[tuple[bytes, bytes]]:
        """The frames of the next packet; [] when the line is closed."""
        assert select.select([sock], [], [], DEADLINE_S)[0], "nothing came"
        return list(frames.split(sock.recv(frames.PACKET_MAX)))

    def give_peer(self, role: str, peer: str, sock: socket.socket) -> None:
        """What start does when a sibling was replaced; closes `sock` here."""
        packet = frames.frame(startwire.PEER, peer.encode())
        socket.send_fds(self.start[role], [packet], [sock.fileno()])
        sock.close()

    def reload(self, files: Mapping[str, bytes]) -> None:
        for packet in startwire.render_controls(2, files):
            self.start["lspawn"].send(packet)

    def replace_send(self) -> None:
        self.send.close()
        self.frames.clear()
        self.send, sends = pair()
        self.give_peer("lspawn", "send", sends)

    def replace_lookup(self) -> None:
        self.start["lookup"].close()
        asked, asks = pair()
        self.fork("lookup", {"lspawn": asked})
        self.give_peer("lspawn", "lookup", asks)

    def message(self, messid: int, content: bytes, uid: int | None = None) -> str:
        """A message file of the queue; its path below mess/."""
        path = self.home / f"queue/mess/{messid % 23}/{messid}"
        path.write_bytes(content)
        owner = self.accounts.qmailq.uid if uid is None else uid
        os.chown(path, owner, QUEUE_GID)
        return f"{messid % 23}/{messid}"

    def command(
        self,
        recip: str,
        *,
        path: str = "5/5",
        alone: bool = False,
        delid: int | None = None,
    ) -> int:
        """Ask for one delivery; its delid."""
        if delid is None:
            self._next_delid += 1
            delid = self._next_delid
        self.send.send(
            delivery.render_local(
                LocalDelivery(
                    delid=DelId(delid),
                    path=path.encode(),
                    sender=b"sender@example.org",
                    recip=recip.encode(),
                    alone=alone,
                )
            )
        )
        return delid

    def report(self) -> Told:
        """The next report to come."""
        while True:
            while self.frames:
                kind, body = self.frames.popleft()
                if kind == delivery.REPORT:
                    report = delivery.parse_report(body)
                    return Told(
                        delid=report.delid,
                        letter=report.letter,
                        text=report.text,
                        cause=report.cause,
                    )
                assert kind == frames.HELLO
                self.slots = frames.parse_hello(body)
            packet = self.read(self.send)
            assert packet, "lspawn closed the line"
            self.frames += packet

    def told(self, recip: str, *, path: str = "5/5", alone: bool = False) -> Told:
        """The report on one delivery, when no other is in flight."""
        delid = self.command(recip, path=path, alone=alone)
        report = self.report()
        assert report.delid == delid
        return report

    def facts(self, who: str, *, alone: bool = False) -> dict[str, object]:
        """What a child of that user says of itself."""
        report = self.told(f"{who}-facts@host", alone=alone)
        assert report.letter is Letter.SUCCESS, report
        found: dict[str, object] = json.loads(report.text)
        return found

    def is_silent(self, limit_s: float = 0.0) -> bool:
        """No report has come (or comes in that time)."""
        ready = select.select([self.send], [], [], limit_s)[0]
        return not self.frames and not ready

    def close(self) -> None:
        """Close every line; the processes end, and are reaped."""
        for sock in [*self.start.values(), self.send]:
            sock.close()
        for pid in self.pids.values():
            reap(pid)


def reap(pid: int) -> int:
    """Wait for a process of ours to end; its exit code, or minus the signal."""
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], DEADLINE_S)[0]:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"process {pid} did not end")
    finally:
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code


def wait_gone(pid: int) -> None:
    """Wait until a process that is not our child is dead."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        dead = select.select([pidfd], [], [], DEADLINE_S)[0]
    finally:
        os.close(pidfd)
    assert dead, f"process {pid} is still there"


def children_of(pid: int) -> set[int]:
    """Pids of its children that are not dead."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(rest[1]) == pid and rest[0] != "Z":
                found.add(int(entry.name))
    return found


def limit_leaving(free: int) -> int:
    """The RLIMIT_NOFILE that leaves so many descriptors free in this process."""
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    taken = {fd for fd in taken if os.path.exists(f"/proc/self/fd/{fd}")}
    limit = 0
    while free:
        free -= limit not in taken
        limit += 1
    return limit


def write_users(home: Path, users: Mapping[str, tuple[int, int]]) -> None:
    """users/cdb with `name` and `name-ext` for each name to (uid, gid)."""
    beside = home / "users/cdb.tmp"
    with beside.open("wb") as file, cdblib.Writer(file) as writer:
        for name, (uid, gid) in users.items():
            fields_ = f"{name}\0{uid}\0{gid}\0/home/{name}\0".encode()
            writer.put(f"!{name}\0".encode(), fields_ + b"\0")
            writer.put(f"!{name}-".encode(), fields_ + b"-\0")
        writer.put(b"", b"-")
    beside.chmod(0o644)
    beside.rename(home / "users/cdb")


def make_home(home: Path, accounts: Accounts) -> None:
    """queue/mess with message 5, users/, alias/."""
    mess = home / "queue/mess"
    for split in range(23):
        (mess / str(split)).mkdir(parents=True)
    for directory in (home / "queue", mess, *mess.iterdir()):
        os.chown(directory, accounts.qmailq.uid, QUEUE_GID)
        directory.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP)
    for name in ("users", "alias"):
        (home / name).mkdir()
        (home / name).chmod(0o755)


@contextmanager
def tree(
    home: Path, controls: Controls | None = None, *, nofile: Limit | None = None
) -> Iterator[Tree]:
    """A running tree with message 5 and users ann, bob, cyd."""
    accounts = made_accounts()
    make_home(home, accounts)
    names = {"ann": (67201, 67301), "bob": (67202, 67302), "cyd": (67203, 67303)}
    write_users(home, names)
    running = Tree(home, controls or Controls(concurrencyperuser=5), accounts, nofile)
    running.message(5, b"Subject: five\n\nbody\n")
    try:
        yield running
    finally:
        running.close()
