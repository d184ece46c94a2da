"""A real remote process under a test that plays start and send."""

from __future__ import annotations

import os
import resource
import select
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields

from qsend.core.model import Account, Accounts, DelId
from qsend.formats import delivery, frames, startwire
from qsend.formats.control import Controls
from qsend.formats.delivery import Report, Transaction
from qsend.procs import remote
from qsend.sysio.boot import Boot
from qsend.sysio.endpoint import pair
from qsend.sysio.fork import fork_child

DEADLINE_S = 20.0
NOFILES_GID = 67003
QMAILR_UID = 67110
CONTROLS = Controls(me=b"me.example", helohost=b"helo.example")
RELAY = b"127.0.0.1"


def accounts() -> Accounts:
    """As root, numbers no account of a machine is likely to have."""
    if os.getuid() == 0:
        one = Account(uid=QMAILR_UID, gid=NOFILES_GID)
    else:
        one = Account(uid=os.getuid(), gid=os.getgid())
    return Accounts(**{field.name: one for field in fields(Accounts)})


def message_fd(message: bytes) -> int:
    """A descriptor of a file that holds `message`."""
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.flush()
        return os.dup(file.fileno())


class RemoteProcess:
    """The process, its send line and its start line."""

    def __init__(
        self,
        controls: Controls = CONTROLS,
        before: Callable[[], None] | None = None,
        role: str = "remote0",
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.start, start_child = pair()
        self.send, send_child = pair()
        boot = Boot(
            role=role,
            home="/nonexistent",
            single_user=os.getuid() != 0,
            accounts=accounts(),
            controls=controls,
            default_delivery=b"",
            socks={"start": start_child, "send": send_child},
            files=files or {},
        )

        def run() -> int:
            if before is not None:
                before()
            return remote.main(boot)

        keep = [start_child.fileno(), send_child.fileno()]
        self.pid = fork_child(run, keep, "remote0")
        start_child.close()
        send_child.close()
        self.start.settimeout(DEADLINE_S)
        self.send.settimeout(DEADLINE_S)
        self._serial = 0
        self._reports: dict[DelId, Report] = {}
        self.slots = self.greet()
        assert self.start.recv(100) == frames.frame(startwire.READY, b"")

    def greet(self) -> int:
        """Read the HELLO and say ours; the slots."""
        ((kind, body),) = frames.split(self.send.recv(frames.PACKET_MAX))
        assert kind == frames.HELLO
        self.send.send(frames.hello(0))
        return frames.parse_hello(body)

    def deliver(
        self,
        message: bytes | int,
        *recips: bytes,
        port: int = 0,
        relay: bytes = RELAY,
        sender: bytes = b"s@sender.example",
        domain: bytes = b"example.org",
    ) -> list[DelId]:
        """Send one transaction; its delivery numbers. An int is a descriptor."""
        wanted = []
        for recip in recips or (b"r@example.org",):
            self._serial += 1
            wanted.append((DelId(self._serial), recip))
        fd = message if isinstance(message, int) else message_fd(message)
        transaction = Transaction(
            domain=domain,
            relay=relay,
            port=port,
            size=0 if isinstance(message, int) else len(message),
            sender=sender,
            recips=tuple(wanted),
        )
        packet = delivery.render_transaction(transaction)
        socket.send_fds(self.send, [packet], [fd])
        os.close(fd)
        return [delid for delid, _recip in wanted]

    def reports(self, delids: Sequence[DelId]) -> list[Report]:
        """The reports of these deliveries, each of which must come once."""
        while not all(delid in self._reports for delid in delids):
            packet = self.send.recv(frames.PACKET_MAX)
            assert packet, "remote closed the line"
            for kind, body in frames.split(packet):
                assert kind == delivery.REPORT
                report = delivery.parse_report(body)
                assert report.delid not in self._reports, "reported twice"
                self._reports[report.delid] = report
        return [self._reports[delid] for delid in delids]

    def outcome(
        self, message: bytes | int, *recips: bytes, port: int = 0, relay: bytes = RELAY
    ) -> list[bytes]:
        """Letter and text of each recipient of one delivery."""
        delids = self.deliver(message, *recips, port=port, relay=relay)
        return [r.letter.value + r.text for r in self.reports(delids)]

    def reload(self, files: Mapping[str, bytes], generation: int = 2) -> None:
        """Play start's part of a HUP, until the process has taken the files.

        What comes over send's line may be read before what start said earlier; the
        HELLO to a new send is said after everything before it on start's line.
        """
        for part in startwire.render_controls(generation, files):
            self.start.send(part)
        self.replace_send()

    def replace_send(self) -> None:
        """Lose send, and give the process a new one."""
        self.send.close()
        ours, theirs = pair()
        packet = frames.frame(startwire.PEER, b"send")
        socket.send_fds(self.start, [packet], [theirs.fileno()])
        theirs.close()
        self.send = ours
        ours.settimeout(DEADLINE_S)
        self.greet()

    def is_quiet(self, seconds: float) -> bool:
        """Whether nothing comes over send's line for so long."""
        return not select.select([self.send], [], [], seconds)[0]

    def close(self) -> int:
        """End it as start does; its exit code."""
        self.start.close()
        self.send.close()
        return reap(self.pid)


def reap(pid: int) -> int:
    """Wait for a child, killing it after the deadline; its exit code."""
    fd = os.pidfd_open(pid)
    try:
        if not select.select([fd], [], [], DEADLINE_S)[0]:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise AssertionError("the process did not end")
    finally:
        os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def running(
    controls: Controls = CONTROLS,
    before: Callable[[], None] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Iterator[RemoteProcess]:
    """A process that must end with 0; `files` as start hands them over."""
    process = RemoteProcess(controls, before, files=files)
    try:
        yield process
    finally:
        assert process.close() == 0


def lower_descriptor_limit() -> None:
    """For `before`: few descriptors, and no way to more."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
