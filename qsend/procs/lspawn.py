"""lspawn: takes local deliveries from send and has each done as its user.

uid root, gid qmail, one thread for ever: it forks. Descriptors at entry: 0, 1, 2,
and the sockets to start, send and lookup. Writes nothing itself but log lines.
Exit codes: 0 when start has gone (deliveries that run go on to their end), 111
when the queue cannot be opened or after an exception.
Source: docs/ARCHITECTURE.md; qmail-lspawn(8), spawn.c, qmail-lspawn.c.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from setproctitle import setproctitle

from qsend.core import logline, spawncheck
from qsend.core.address import log_safe, split
from qsend.core.errors import ConfigError, Fatal, RemoteProtocolError
from qsend.core.localpool import Work
from qsend.core.model import Account, Cause, DelId, Letter, User
from qsend.core.spawncheck import Answer
from qsend.core.users import NoUser, Outcome, Trouble, refusal
from qsend.formats import delivery, frames, lookupwire
from qsend.formats.control import parse_controls
from qsend.formats.delivery import ChildDelivery, LocalDelivery, Report
from qsend.formats.lookupwire import Question
from qsend.sysio.boot import Boot
from qsend.sysio.closing import close_read
from qsend.sysio.endpoint import Endpoint
from qsend.sysio.localchild import ChildMain, ChildSetup, LocalChildren
from qsend.sysio.loop import Loop
from qsend.sysio.parent import Parent
from qsend.sysio.privilege import drop, hide

SLOTS_MAX = 2000
"""Deliveries taken at once, from the frame to the report, whoever gave them."""

_SPARE_FDS = 64
"""Descriptors not used by deliveries: sockets, the loop, slack."""

OTHERS_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Meant for start when they reach the whole process group: this process goes on
until start closes its line, so that no report is lost."""

_LOOKUP_GONE = spawncheck.lookup_trouble(b"the user lookup is not running")


@dataclass(slots=True, kw_only=True)
class _Delivery:
    """One delivery that has not been reported; send's number and where it came from.

    `message` is the open message file until a child has it.
    """

    command: LocalDelivery
    asked_by: Endpoint
    message: int | None = None


class Lspawn:
    """Serves until start goes away."""

    def __init__(self, boot: Boot, child_main: ChildMain, mess_fd: int) -> None:
        self._accounts = boot.accounts
        self._single_user = boot.single_user
        self._mess_fd = mess_fd
        self._slots = _slots()
        self._loop = Loop()
        for signum in OTHERS_SIGNALS:
            self._loop.on_signal(signum, lambda: None)
        self._children = LocalChildren(
            self._loop,
            ChildSetup(
                home=boot.home,
                controls=boot.controls,
                default_delivery=boot.default_delivery,
                single_user=boot.single_user,
                run=child_main,
            ),
            self._report,
        )
        self._next_serial = 0
        # By our own serials: a new send numbers its deliveries from 1 again while
        # children are still at work for the old one.
        self._deliveries: dict[DelId, _Delivery] = {}
        self._asked: set[DelId] = set()
        # The numbers that the present send has running.
        self._taken: set[DelId] = set()
        self._send: Endpoint | None = None
        self._lookup: Endpoint | None = None
        self._parent = Parent(
            self._loop,
            boot.socks["start"],
            on_close=self._loop.stop,
            on_controls=self._controls,
            on_peer=self._peer,
        )
        for role in ("lookup", "send"):
            if role in boot.socks:
                self._peer(role, boot.socks[role])

    def run(self) -> None:
        """Serve; returns when start has closed its line."""
        self._parent.ready()
        self._loop.run()
        self._children.close()

    def _controls(self, generation: int, files: Mapping[str, bytes]) -> None:
        try:
            controls = parse_controls(files, generation)
        except ConfigError as exc:
            # start has validated them; should it not agree, the old ones stay.
            os.write(2, logline.warning(f"qmail-lspawn: keeping controls: {exc}"))
            return
        self._children.reload(controls)

    def _peer(self, role: str, sock: socket.socket) -> None:
        if role == "send":
            if self._send is not None:
                self._send.close("replaced")
            self._send = Endpoint(
                self._loop, sock, self._send_frame, lambda _reason: self._send_lost()
            )
            self._send.send(frames.hello(self._slots))
        elif role == "lookup":
            if self._lookup is not None:
                self._lookup.close("replaced")
            self._lookup = Endpoint(
                self._loop,
                sock,
                lambda kind, body, _fds: self._lookup_frame(kind, body),
                lambda _reason: self._lookup_lost(),
            )
            self._lookup.send(frames.hello(self._slots))
        else:
            sock.close()

    # What send says

    def _send_frame(self, kind: bytes, body: bytes, _fds: object) -> None:
        if kind == frames.HELLO:
            frames.parse_hello(body)
        elif kind == delivery.LOCAL:
            self._command(delivery.parse_local(body))
        else:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from send")

    def _send_lost(self) -> None:
        """What runs goes on, unheard; what has not begun is left to the next send.

        Questions already asked stay asked; their answers find the asker gone.
        """
        self._taken.clear()
        for serial in self._children.cancel_waiting():
            del self._deliveries[serial]

    def _command(self, command: LocalDelivery) -> None:
        if command.delid in self._taken or len(self._deliveries) >= self._slots:
            self._answer(command, spawncheck.BAD_DELNUM)
            return
        refused = spawncheck.refuse(command.path, command.recip)
        if refused is not None:
            self._answer(command, refused)
            return
        local, _ = split(command.recip)
        message = self._open(command.path)
        if not isinstance(message, int):
            self._answer(command, message)
        elif len(local) > lookupwire.LOCAL_MAX:
            close_read(message)
            self._answer(command, spawncheck.TOO_LONG)
        elif local == b"":
            # Nobody's mail: qmail-lspawn has always let it vanish.
            close_read(message)
            self._answer(command, (Letter.SUCCESS, b""))
        elif self._lookup is None or self._lookup.closed:
            close_read(message)
            self._answer(command, _LOOKUP_GONE, Cause.UNRESOLVED)
        else:
            self._ask(self._lookup, command, local, message)

    def _open(self, path: bytes) -> int | Answer:
        """The open message; `path` is digits and slashes below mess/."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags, dir_fd=self._mess_fd)
        except OSError:
            return spawncheck.CANNOT_OPEN
        try:
            status = os.fstat(fd)
        except OSError:
            close_read(fd)
            return spawncheck.CANNOT_OPEN
        owner = self._accounts.qmailq.uid
        if not stat.S_ISREG(status.st_mode) or status.st_uid != owner:
            close_read(fd)
            return spawncheck.WRONG_FILE
        return fd

    # What lookup says

    def _ask(
        self, lookup: Endpoint, command: LocalDelivery, local: bytes, message: int
    ) -> None:
        assert self._send is not None
        serial = self._new_serial()
        self._deliveries[serial] = _Delivery(
            command=command, asked_by=self._send, message=message
        )
        self._asked.add(serial)
        self._taken.add(command.delid)
        question = Question(number=serial, local=local)
        lookup.send(lookupwire.render_question(question))

    def _lookup_frame(self, kind: bytes, body: bytes) -> None:
        if kind == frames.HELLO:
            frames.parse_hello(body)
            return
        if kind != lookupwire.ANSWER:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from lookup")
        answer = lookupwire.parse_answer(body)
        serial = DelId(answer.number)
        if serial not in self._asked:
            raise RemoteProtocolError(f"an answer to no question, {serial}")
        self._asked.discard(serial)
        self._resolved(serial, answer.outcome)

    def _lookup_lost(self) -> None:
        asked, self._asked = self._asked, set()
        for serial in sorted(asked):
            self._finish(serial, _LOOKUP_GONE, Cause.UNRESOLVED)

    def _resolved(self, serial: DelId, outcome: Outcome) -> None:
        match outcome:
            case NoUser():
                self._finish(serial, spawncheck.NO_ALIAS)
            case Trouble(text=text):
                answer = spawncheck.lookup_trouble(text)
                self._finish(serial, answer, Cause.UNRESOLVED)
            case User() as user:
                self._found(serial, user)
            case _:
                assert_never(outcome)

    def _found(self, serial: DelId, user: User) -> None:
        why = refusal(user.uid, self._accounts, single_user=self._single_user)
        if why is None:
            self._start(serial, user)
            return
        name = log_safe(user.name).decode("ascii")
        line = f"qmail-lspawn: mail for user {name}, uid {user.uid}: {why}"
        os.write(2, logline.alert(line))
        self._finish(serial, spawncheck.REFUSED)

    # Deliveries

    def _start(self, serial: DelId, user: User) -> None:
        entry = self._deliveries[serial]
        message, entry.message = entry.message, None
        assert message is not None
        if entry.asked_by.closed:
            close_read(message)
            del self._deliveries[serial]
            return
        local, domain = split(entry.command.recip)
        self._children.add(
            Work(
                delid=serial,
                account=Account(uid=user.uid, gid=user.gid),
                home=user.home,
                alone=entry.command.alone,
            ),
            ChildDelivery(
                delid=serial,
                user=user,
                local=local,
                domain=domain or b"",
                sender=entry.command.sender,
            ),
            message,
        )

    def _finish(
        self, serial: DelId, answer: Answer, cause: Cause = Cause.NORMAL
    ) -> None:
        """Report on a delivery that no child got."""
        message = self._deliveries[serial].message
        if message is not None:
            close_read(message)
        letter, text = answer
        self._report(Report(delid=serial, letter=letter, text=text, cause=cause))

    def _report(self, report: Report) -> None:
        """A child's report, or why there will be none; unheard if its send is gone."""
        entry = self._deliveries.pop(report.delid)
        if entry.asked_by is self._send:
            self._taken.discard(entry.command.delid)
        own = Report(
            delid=entry.command.delid,
            letter=report.letter,
            text=report.text,
            cause=report.cause,
        )
        entry.asked_by.send(delivery.render_report(own, delivery.REPORT_LOCAL_MAX))

    def _answer(
        self, command: LocalDelivery, answer: Answer, cause: Cause = Cause.NORMAL
    ) -> None:
        """Report on a command at once."""
        assert self._send is not None
        letter, text = answer
        report = Report(delid=command.delid, letter=letter, text=text, cause=cause)
        self._send.send(delivery.render_report(report, delivery.REPORT_LOCAL_MAX))

    def _new_serial(self) -> DelId:
        while True:
            self._next_serial = (self._next_serial + 1) & 0xFFFFFFFF
            if self._next_serial not in self._deliveries:
                return DelId(self._next_serial)


def _slots() -> int:
    """Deliveries taken at once: each may need a descriptor for its message and
    one for a child of its own.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(SLOTS_MAX, (limit - _SPARE_FDS) // 2))


def main(boot: Boot, child_main: ChildMain) -> int:
    """Open the queue as root and serve until start goes away; the exit code.

    `child_main` is what each local child runs.
    Raises: Fatal when the queue cannot be opened.
    """
    setproctitle("qmail-lspawn: qsend")
    drop(boot.accounts.root)
    hide()
    try:
        mess_fd = os.open(
            f"{boot.queue}/mess", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
    except OSError as exc:
        raise Fatal(f"unable to open {boot.queue}/mess: {exc.strerror}") from exc
    Lspawn(boot, child_main, mess_fd).run()
    return 0
