"""runner: runs the programs that access rules name in the place of qmail-queue.

uid qmaild, gid nofiles, no other group; one thread for ever, for it forks. Not there
until a listener has a message for such a program. Descriptors at entry: 0 to 2, and
the sockets to start and the listeners. It reads the access rules: a listener
says who its client is, never what is to be run. It touches no byte of a message.
no_new_privs must not be set here: the programs may be setuid (qmail-queue of an older
installation, scanners). start gone: programs get a TERM, and their messages no
acknowledgement. Exit codes: 0 when start ended the line, 111 after an exception.
Source: docs/NETWORK.md; qmail.c; docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from setproctitle import setproctitle

from qsend.core import logline
from qsend.core.access import QUEUE_VARIABLE
from qsend.core.errors import (
    ConfigError,
    OutOfDescriptors,
    RemoteProtocolError,
    TempFail,
)
from qsend.core.family import kind
from qsend.core.repeats import Repeats
from qsend.formats import frames, runnerwire
from qsend.formats.queueexit import QueueExit
from qsend.formats.runnercontrols import parse_runner
from qsend.formats.runnerwire import Request, Result
from qsend.sysio import clock
from qsend.sysio.accessfile import AccessFile
from qsend.sysio.boot import Boot
from qsend.sysio.endpoint import Descriptors, Endpoint
from qsend.sysio.fork import fork_child, reaped
from qsend.sysio.loop import READ, Loop, Timer
from qsend.sysio.parent import Parent
from qsend.sysio.privilege import drop, hide
from qsend.sysio.programenv import client_variables, program_base
from qsend.sysio.queueprogram import CUSTOM_MAX, become

_SERVICES = ("smtp", "qmtp", "qmqp")
"""Those of whose clients messages come."""
_OTHERS_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Meant for start when they reach the whole process group."""
_READ_MAX = 4096


@dataclass(slots=True, kw_only=True, eq=False)
class _Run:
    """One program; `asker` is None when nobody wants to know how it ends.

    `text` is where it explains itself, `timer` what ends it by force.
    """

    number: int
    asker: Endpoint | None
    program: bytes
    pid: int
    text: int
    said: bytes = b""
    timer: Timer | None = None
    is_late: bool = False


class Runner:
    """Serves until start goes away."""

    def __init__(self, boot: Boot) -> None:
        self._home = boot.home
        self._base = program_base(boot.home, os.environb)
        self._settings = parse_runner(boot.files)
        self._rules = {
            name: AccessFile.of_service(boot.home, name) for name in _SERVICES
        }
        self._repeats = Repeats()
        self._runs: dict[int, _Run] = {}
        self._loop = Loop()
        for signum in _OTHERS_SIGNALS:
            self._loop.on_signal(signum, lambda: None)
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        self._parent = Parent(
            self._loop,
            boot.socks["start"],
            on_close=self._end,
            on_controls=self._controls,
            on_peer=self._peer,
        )
        for role, sock in boot.socks.items():
            if role != "start":
                self._peer(role, sock)

    def run(self) -> None:
        """Serve; returns when start has closed its line."""
        self._parent.ready()
        self._loop.run()

    def _end(self) -> None:
        for run in self._runs.values():
            _signal(run, signal.SIGTERM)
        self._loop.stop()

    def _controls(self, _generation: int, files: Mapping[str, bytes]) -> None:
        try:
            self._settings = parse_runner(files)
        except ConfigError as exc:  # start checked them: a surprise
            os.write(2, logline.warning(f"qmail-runner: keeping controls: {exc}"))
            return
        for rules in self._rules.values():
            rules.forget()

    def _note(self, text: str) -> None:
        if self._repeats.is_news(text, clock.mono()):
            os.write(2, logline.warning(f"qmail-runner: {text}"))

    # Listeners

    def _peer(self, role: str, sock: socket.socket) -> None:
        if kind(role) not in ("smtpd", "qmtpd"):
            sock.close()
            raise RemoteProtocolError(f"unexpected peer {role!r}")
        endpoint = Endpoint(
            self._loop,
            sock,
            lambda kind, body, fds: self._frame(endpoint, kind, body, fds),
            lambda _reason: self._lost(endpoint),
            max_fds=frames.FDS_MAX,
        )

    def _lost(self, asker: Endpoint) -> None:
        for run in self._runs.values():
            if run.asker is asker:
                run.asker = None
                self._limit(run)

    def _frame(
        self, asker: Endpoint, kind: bytes, body: bytes, fds: Descriptors
    ) -> None:
        match kind:
            case runnerwire.RUN:
                self._take(asker, runnerwire.parse_request(body), fds)
            case runnerwire.COMMIT | runnerwire.ABORT:
                run = self._find(asker, runnerwire.parse_word(body))
                if run is not None:
                    self._limit(run)
                    if kind == runnerwire.ABORT:
                        run.asker = None
            case _:
                raise RemoteProtocolError(f"unexpected frame {kind!r} from a listener")

    def _find(self, asker: Endpoint, number: int) -> _Run | None:
        """None for one that has ended: the frames have crossed."""
        for run in self._runs.values():
            if run.asker is asker and run.number == number:
                return run
        return None

    # Programs

    def _take(self, asker: Endpoint, request: Request, fds: Descriptors) -> None:
        """Run what the rules name. Raises: RemoteProtocolError."""
        try:
            message, envelope = fds.take_two()
        except OutOfDescriptors as exc:
            self._refuse(asker, request, exc)
            return
        try:
            run = self._start(asker, request, message, envelope)
        except TempFail as exc:
            self._refuse(asker, request, exc)
            return
        finally:
            os.close(message)
            os.close(envelope)
        self._runs[run.pid] = run
        self._loop.register(run.text, READ, lambda _mask: self._hear(run))

    def _refuse(self, asker: Endpoint, request: Request, why: TempFail) -> None:
        self._note(str(why))
        busy = Result(number=request.number, code=QueueExit.BUSY)
        asker.send(runnerwire.render_result(busy))

    def _start(
        self, asker: Endpoint, request: Request, message: int, envelope: int
    ) -> _Run:
        """Raises: RemoteProtocolError; TempFail when no program is to be had."""
        program, environ = self._choose(request)
        if len(self._runs) >= self._settings.programs_max:
            raise TempFail("control/concurrencyrunner: clients are told to come back")
        try:
            text, theirs = os.pipe2(os.O_CLOEXEC)
        except OSError as exc:
            raise TempFail(f"cannot make a pipe: {exc.strerror}") from exc
        fds = (message, envelope, theirs)

        def child() -> int:
            os.setsid()
            return become(program, self._home, fds, environ)

        try:
            pid = fork_child(child, fds, "queueing program")
        except BaseException:
            os.close(text)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(text, False)
        return _Run(
            number=request.number, asker=asker, program=program, pid=pid, text=text
        )

    def _choose(self, request: Request) -> tuple[bytes, dict[bytes, bytes]]:
        """The program and its environment. Raises: RemoteProtocolError, TempFail."""
        rules = self._rules.get(request.service)
        if rules is None:
            raise RemoteProtocolError(f"no service {request.service!r}")
        try:
            access = rules.judge(request.client)
        except ValueError as exc:
            raise RemoteProtocolError("no address") from exc
        program = access.variables.get(QUEUE_VARIABLE)
        if not access.is_allowed or not program:
            address = request.client.address
            raise TempFail(f"{address}: the rules have changed; it is to come back")
        given = client_variables(request.client, access.variables, request.login)
        return program, {**self._base, **given}

    def _hear(self, run: _Run) -> None:
        """What the program says of itself; kept to CUSTOM_MAX bytes."""
        try:
            data = os.read(run.text, _READ_MAX)
        except BlockingIOError:
            return
        run.said = (run.said + data)[:CUSTOM_MAX]
        if not data:
            self._loop.unregister(run.text)

    def _limit(self, run: _Run) -> None:
        """From now on its time runs."""
        if run.timer is None:
            timeout_s = self._settings.timeout_s
            run.timer = self._loop.call_later(timeout_s, lambda: self._kill(run))

    def _kill(self, run: _Run) -> None:
        run.is_late = True
        shown = os.fsdecode(run.program)
        self._note(f"{shown} does not end (control/timeoutrunner), killing it")
        _signal(run, signal.SIGKILL)

    def _reap(self) -> None:
        for pid, status in reaped():
            run = self._runs.pop(pid, None)
            if run is not None:
                self._ended(run, os.waitstatus_to_exitcode(status))

    def _ended(self, run: _Run, code: int) -> None:
        self._hear(run)
        self._loop.unregister(run.text)
        os.close(run.text)
        if run.timer is not None:
            run.timer.cancel()
        if run.asker is None:
            return
        if run.is_late:
            code = QueueExit.TIMEOUT
        elif code < 0:
            self._note(f"{os.fsdecode(run.program)} was killed by signal {-code}")
        elif code == QueueExit.EXEC:
            self._note(f"{os.fsdecode(run.program)} cannot be run (exit {code})")
        result = Result(
            number=run.number, code=max(code, -1), pid=run.pid, custom=run.said
        )
        run.asker.send(runnerwire.render_result(result))


def _signal(run: _Run, signum: int) -> None:
    """To the program and what it has started; not reaped yet, so the number is its."""
    try:
        os.killpg(run.pid, signum)
    except ProcessLookupError:
        os.kill(run.pid, signum)  # it has no session of its own yet
    except PermissionError:
        pass  # all of it is setuid to somebody else: it ends by its pipes


def main(boot: Boot) -> int:
    """Serve until start closes its line; the exit code.

    Raises: whatever was unexpected, for the one line that fork_child writes.
    """
    setproctitle("qmail-runner: qsend")
    drop(boot.accounts.qmaild)
    hide()
    Runner(boot).run()
    return 0
