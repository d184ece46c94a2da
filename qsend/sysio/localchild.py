"""Local children: forked for one account each, given deliveries, watched, reaped.

The decisions are core/localpool.py's; here the steps happen. Belongs to a process
without threads, running as root (or as the one user of single-user mode).
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from setproctitle import setproctitle

from qsend.core import logline, spawncheck
from qsend.core.errors import Fatal, RemoteProtocolError, TempFail
from qsend.core.localpool import ChildId, End, Fork, Give, LocalPool, Step, Work
from qsend.core.model import Account, Cause, DelId
from qsend.formats import delivery
from qsend.formats.control import Controls
from qsend.formats.delivery import ChildDelivery, Report
from qsend.sysio import clock, privilege
from qsend.sysio.boot import ChildBoot
from qsend.sysio.closing import close_read
from qsend.sysio.endpoint import Endpoint, pair
from qsend.sysio.fork import fork_child
from qsend.sysio.loop import Loop, Timer

EXIT_NOT_DROPPED = 112
"""Exit code of a child that could not become its user (qmail-lspawn's own)."""

_GRACE_S = 60.0
"""An ended child has nothing left to do; one still there after this is killed."""

_LAST_WORDS_S = 1.0
"""How long the reports of a dead child are waited for; they are in its socket."""

ChildMain = Callable[[ChildBoot], int]
"""What a local child runs; its exit code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSetup:
    """What every child forked from now on gets; `home` is qsend's."""

    home: str
    controls: Controls
    default_delivery: bytes
    single_user: bool
    run: ChildMain


@dataclass(slots=True, kw_only=True)
class _Process:
    """One child, from its fork until it is reaped and its line is closed."""

    pid: int
    endpoint: Endpoint
    code: int | None = None
    """How it ended, once it is reaped; minus the signal that killed it."""
    lost: Sequence[DelId] | None = None
    """Once its line is closed: what it never reported on."""
    reason: str = ""
    """Why its line is closed, unless we closed it."""


def fork_local(setup: ChildSetup, account: Account) -> tuple[int, socket.socket]:
    """Fork a child that runs as `account`; its pid and our end of its socket.

    The child has its socket and 0, 1, 2, exactly that uid, gid and group, no core
    and no tracer, and umask 077. It may run setuid programs. When it cannot become
    the account, it exits with EXIT_NOT_DROPPED.
    Raises: TempFail or OSError when the system has no room for it.
    """
    ours, theirs = pair()
    try:
        pid = fork_child(
            lambda: _run(setup, account, theirs), [theirs.fileno()], "qmail-local"
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, ours


def _run(setup: ChildSetup, account: Account, sock: socket.socket) -> int:
    """The child's whole life."""
    setproctitle("qmail-local: qsend")
    try:
        privilege.drop(account)
        privilege.hide()
    except Fatal as exc:
        os.write(2, logline.alert(f"qmail-local: {exc}"))
        return EXIT_NOT_DROPPED
    os.umask(0o077)
    boot = ChildBoot(
        home=setup.home,
        account=account,
        controls=setup.controls,
        default_delivery=setup.default_delivery,
        sock=sock,
        single_user=setup.single_user,
    )
    return setup.run(boot)


class LocalChildren:
    """All local children of this process.

    Every delivery that was added and not cancelled ends in exactly one `on_report`,
    which may come before `add` returns.
    """

    def __init__(
        self, loop: Loop, setup: ChildSetup, on_report: Callable[[Report], None]
    ) -> None:
        """Fork no child yet; takes SIGCHLD of the loop."""
        self._loop = loop
        self._setup = setup
        self._on_report = on_report
        self._pool = LocalPool(setup.controls.concurrencyperuser)
        self._given: dict[ChildId, _Process] = {}
        self._unreaped: dict[int, _Process] = {}
        self._held: dict[DelId, tuple[ChildDelivery, int]] = {}
        self._timer: Timer | None = None
        loop.on_signal(signal.SIGCHLD, self._reap)

    def add(self, work: Work, child_delivery: ChildDelivery, fd: int) -> None:
        """Have the message behind `fd` delivered; owns `fd`.

        `work` and `child_delivery` speak of the same delivery and user.
        """
        self._held[work.delid] = (child_delivery, fd)
        self._take(self._pool.add(work))

    def cancel_waiting(self) -> list[DelId]:
        """Forget deliveries that no child has yet; those that were forgotten."""
        cancelled = self._pool.cancel_waiting()
        for delid in cancelled:
            close_read(self._held.pop(delid)[1])
        return cancelled

    def reload(self, controls: Controls) -> None:
        """Use other controls from the next child on; old children end."""
        self._setup = replace(self._setup, controls=controls)
        self._take(self._pool.retire(controls.concurrencyperuser))

    def close(self) -> None:
        """Close every line; children end when their running deliveries do."""
        self.cancel_waiting()
        given, self._given = self._given, {}
        for process in given.values():
            process.endpoint.close("exiting")

    def _take(self, steps: Sequence[Step]) -> None:
        queue = deque(steps)
        while queue:
            match queue.popleft():
                case Fork(child=child, account=account):
                    queue += self._fork(child, account)
                case Give(child=child, delid=delid):
                    self._give(child, delid)
                case End(child=child):
                    self._end(child)
        self._arm()

    def _fork(self, child: ChildId, account: Account) -> Sequence[Step]:
        try:
            pid, sock = fork_local(self._setup, account)
        except (TempFail, OSError):
            delids, steps = self._pool.lost(child)
            for delid in delids:
                close_read(self._held.pop(delid)[1])
                self._say(delid, spawncheck.CANNOT_FORK, Cause.NORMAL)
            return steps
        endpoint = Endpoint(
            self._loop,
            sock,
            lambda kind, body, _fds: self._frame(child, kind, body),
            lambda reason: self._closed(child, reason),
            # A flood from one user's child must not delay the mail of others.
            max_packets=1,
        )
        process = _Process(pid=pid, endpoint=endpoint)
        self._given[child] = self._unreaped[pid] = process
        return ()

    def _give(self, child: ChildId, delid: DelId) -> None:
        process = self._given.get(child)
        if process is None:
            return  # its fork failed, and the delivery has been reported
        child_delivery, fd = self._held.pop(delid)
        process.endpoint.send(delivery.render_child(child_delivery), fd)

    def _end(self, child: ChildId) -> None:
        process = self._given.pop(child)
        process.lost = ()
        process.endpoint.close("ended")
        self._loop.call_later(_GRACE_S, lambda: self._kill(process))

    def _frame(self, child: ChildId, kind: bytes, body: bytes) -> None:
        if kind != delivery.REPORT:
            raise RemoteProtocolError(f"unexpected frame {kind!r}")
        report = delivery.parse_report(body)
        if len(report.text) > delivery.REPORT_LOCAL_MAX:
            raise RemoteProtocolError(f"a report of {len(report.text)} bytes")
        steps = self._pool.done(child, report.delid, clock.mono())
        # A child may say what became of its delivery, not how the schedule takes it.
        if report.cause is not Cause.NORMAL:
            report = replace(report, cause=Cause.NORMAL)
        self._on_report(report)
        self._take(steps)

    def _closed(self, child: ChildId, reason: str) -> None:
        """The child went away by itself, or broke the protocol."""
        process = self._given.pop(child, None)
        if process is None:
            return  # we closed the line
        process.reason = reason
        process.lost, steps = self._pool.lost(child)
        if process.code is None:
            # Reported when it is reaped: its exit tells why, and until then it
            # might still be at work.
            self._kill(process)
        else:
            self._say_lost(process)
        self._take(steps)

    def _kill(self, process: _Process) -> None:
        # Only a process that is not reaped still has its number.
        if process.code is None:
            os.kill(process.pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._unreaped:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            process = self._unreaped.pop(pid, None)
            if process is not None:
                process.code = os.waitstatus_to_exitcode(status)
                self._reaped(process)

    def _reaped(self, process: _Process) -> None:
        if process.lost is not None:
            self._say_lost(process)
        else:
            # Reports may still lie in its socket, then comes the end; unless some
            # process of its making holds the other side open.
            endpoint = process.endpoint
            self._loop.call_later(_LAST_WORDS_S, lambda: endpoint.close("closed"))

    def _say_lost(self, process: _Process) -> None:
        if process.reason:
            text = (
                f"qmail-local: child {process.pid} lost ({process.reason}), "
                f"exit {process.code}, deliveries deferred: {len(process.lost or ())}"
            )
            os.write(2, logline.warning(text))
        for delid in process.lost or ():
            if process.code == EXIT_NOT_DROPPED:
                self._say(delid, spawncheck.INTERNAL, Cause.NORMAL)
            else:
                self._say(delid, spawncheck.CRASHED, Cause.CHILD_LOST)

    def _say(self, delid: DelId, answer: spawncheck.Answer, cause: Cause) -> None:
        letter, text = answer
        self._on_report(Report(delid=delid, letter=letter, text=text, cause=cause))

    def _arm(self) -> None:
        """Wake up when the next idle child has been kept long enough."""
        if self._timer is not None:
            return
        due_mono = self._pool.next_expiry_mono()
        if due_mono is not None:
            delay_s = max(0.0, due_mono - clock.mono())
            self._timer = self._loop.call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._take(self._pool.expire(clock.mono()))
