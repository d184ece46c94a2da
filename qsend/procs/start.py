"""start: the root of the tree; does nothing clever.

uid root, gid root, no other group. Locks and checks the queue, reads the
controls, makes the sockets, forks every child and keeps them all alive; tells
send of signals and all of new controls. Reads no bytes of outsiders, speaks no
SQL and no DNS. Descriptors at entry: 1 is the log; from 3 on sockets that a service
manager lends. Exit codes: 0 after a stop, 100 when the configuration is wrong, 111
when the queue cannot be used or a child cannot be started.
Source: docs/ARCHITECTURE.md; qmail-start.c.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
from collections.abc import Callable, Mapping

from setproctitle import setproctitle

from qsend.core import family, logline
from qsend.core.childtable import State
from qsend.core.errors import (
    ConfigError,
    QsendError,
    RemoteProtocolError,
    TempFail,
)
from qsend.core.model import Account
from qsend.core.startoptions import StartOptions
from qsend.formats import startwire
from qsend.formats.control import parse_controls, timeoutterm
from qsend.formats.frames import frame
from qsend.formats.supervision import parse_offer, status
from qsend.sysio import listening
from qsend.sysio.boot import Boot
from qsend.sysio.classicchild import ClassicProgram, run_classic
from qsend.sysio.controldir import exposed
from qsend.sysio.fork import fork_child
from qsend.sysio.ground import Ground, prepare
from qsend.sysio.herald import Herald
from qsend.sysio.loop import Loop
from qsend.sysio.nursery import Child, Nursery
from qsend.sysio.privilege import drop, hide
from qsend.sysio.supervisor import LentSockets, Supervisor, take_lent
from qsend.sysio.surroundings import (
    arrange_descriptors,
    arrange_stacks,
    forget_environment,
)
from qsend.sysio.validate import take_good

Main = Callable[[Boot], int]
"""What a child runs after its fork; the answer is its exit code."""

GRACE_S = 5.0
"""A child whose line is closed has nothing left to wait for."""
DRAIN_MARGIN_S = 10.0
"""send gets this much longer than it gives its deliveries: it has to save."""
ISOLATED_RETRY_S = 1.0
"""Pause when there is no room for one process more."""


MainOf = Callable[[str], Main]
"""Of a kind of child; may load its code, and is called before the fork."""


def main(options: StartOptions, main_of: MainOf) -> int:
    """Run the tree in the foreground until it is told to stop.

    Args:
        options: the command line.
        main_of: what each kind of child runs.
    """
    setproctitle("qmail-start: qsend")
    os.chdir("/")
    os.umask(0o077)
    offer = parse_offer(os.environb, os.getpid())
    lent = take_lent(offer)
    forget_environment()
    arrange_descriptors()
    arrange_stacks()
    supervisor = Supervisor(offer.notify)
    try:
        ground = _prepare(options, lent)
    except ConfigError as exc:
        for fault in exc.faults:
            _say(logline.alert(f"cannot start: {fault}"))
        supervisor.tell(status(f"cannot start: {exc.faults[0]}".encode()))
        return 100
    except QsendError as exc:
        _say(logline.alert(str(exc)))
        supervisor.tell(status(str(exc).encode()))
        return 111
    return Start(options, main_of, ground, supervisor, offer.watchdog_s).run()


def _prepare(options: StartOptions, lent: LentSockets) -> Ground:
    if not options.single_user:
        drop(Account(uid=0, gid=0), ())
    hide()
    cores = len(os.sched_getaffinity(0))
    ground = prepare(options.home, options.single_user, cores, lent)
    _warn_of_secrets(options.home)
    for name in ground.idle:
        text = f"{name} was handed over by the service manager, but no control"
        _say(logline.warning(f"{text} file names it: nobody serves it"))
    return ground


def _say(line: bytes) -> None:
    """One line to the log; one that nobody reads any more is lost."""
    try:
        os.write(1, line)
    except OSError:
        pass


def _warn_of_secrets(home: str) -> None:
    for name in exposed(home):
        problem = "is secret and can be read by others; expected mode 0600"
        _say(logline.warning(f"control/{name} {problem}"))


class Start:
    """The running tree; keeps the Nursery's children for a purpose."""

    def __init__(
        self,
        options: StartOptions,
        main_of: MainOf,
        ground: Ground,
        supervisor: Supervisor,
        watchdog_s: float | None,
    ) -> None:
        self._options = options
        self._main_of = main_of
        self._ground = ground
        self._controls = ground.controls
        self._generation = 1
        self._code = 0
        self._detach = False
        self._isolated = 0
        self._loop = Loop()
        cores = len(os.sched_getaffinity(0))
        self._plan = family.plan(
            options.remotes or cores,
            list(options.classic),
            pop3=bool(ground.network.processes("pop3d")),
            smtp=ground.network.processes("smtpd"),
            qmtp=bool(ground.network.processes("qmtpd")),
        )
        self._nursery = Nursery(self._loop, self._plan, self, options.pace)
        self._herald = Herald(
            self._loop,
            supervisor,
            watchdog_s,
            ask=lambda: self._tell(self._send, frame(startwire.PING, b"")),
            look=lambda: (self._send.state, self._nursery.stopping),
        )

    def run(self) -> int:
        """Serve until stopped; the exit code."""
        signals: dict[int, Callable[[], None]] = {
            signal.SIGCHLD: self._nursery.reap,
            signal.SIGTERM: functools.partial(self.stop, detach=False, code=0),
            signal.SIGINT: functools.partial(self.stop, detach=False, code=0),
            signal.SIGHUP: self.reload,
            signal.SIGALRM: self._alarm,
        }
        for signum, action in signals.items():
            self._loop.on_signal(signum, action)
        self._nursery.begin()
        self._loop.run()
        self._herald.close()
        self._nursery.close()
        self._loop.close()
        self._controls.close()
        self._ground.leave(keep_injection=self._detach)
        return self._code

    # The end

    def stop(self, *, detach: bool, code: int) -> None:
        """Let send finish, then all others; `detach` leaves enqueue running."""
        if self._nursery.stopping:
            self._detach = self._detach and detach
            return
        self._nursery.stopping = True
        # send's time, then that of those who outlive it.
        self._herald.stopping(self.grace_s(self._send) + 2 * GRACE_S)
        self._detach = detach
        self._code = code
        for child in list(self._nursery.children.values()):
            if not child.pid:
                self._nursery.stop(child)
        self._nursery.stop(self._send)
        self._advance()

    def _advance(self) -> None:
        """Once send is gone, end the others; once all are gone, return."""
        if not self._nursery.stopping or self._send.state is not State.GONE:
            return
        for child in list(self._nursery.living()):
            self._nursery.stop(child)
        if not any(self._nursery.living()):
            self._loop.stop()

    @property
    def _send(self) -> Child:
        return self._nursery.children[family.SEND]

    # What the operator asks for

    def _alarm(self) -> None:
        self._tell(self._send, frame(startwire.SIGNAL, startwire.SIGNAL_ALRM))

    def reload(self) -> None:
        """Give all children new controls, or nobody."""
        self._herald.reloading()
        try:
            controls = take_good(self._options.home, self._ground.accounts.qmailp)
        except (ConfigError, TempFail) as exc:
            self._keep_controls(exc)
            return
        _warn_of_secrets(self._options.home)
        for name in listening.changed(self._ground.controls.files, controls.files):
            text = f"control/{name} has changed; that needs a new start"
            _say(logline.warning(text))
        self._generation += 1
        self._controls.close()
        self._controls = controls
        for child in self._nursery.living():
            if child.line is not None:
                controls.tell(child.role, self._generation, child.line.send)
        said = b"reread controls: generation %d" % self._generation
        _say(said + b"\n")
        self._herald.reloaded(said)

    def _keep_controls(self, why: ConfigError | TempFail) -> None:
        faults = why.faults if isinstance(why, ConfigError) else [why]
        texts = [f"unable to reread controls: {fault}" for fault in faults]
        for text in texts:
            _say(logline.alert(text))
        self._herald.reloaded(texts[0].encode())

    def _tell(self, child: Child, told: bytes) -> None:
        if child.line is not None:
            child.line.send(told)

    # Keeper: what the Nursery asks for

    def spawn(self, role: str, socks: Mapping[str, socket.socket]) -> int:
        """Fork one child; the lock lives on in those who change the queue.

        Should this process be killed, no new tree starts before they have ended.
        """
        kind = family.kind(role)
        socks = {**socks, **self._ground.listeners_of(role)}
        keep = [sock.fileno() for sock in socks.values()]
        if not family.is_classic(role):
            keep += self._controls.descriptors_of(role).values()
        if kind in ("send", "clean"):
            keep.append(self._ground.lock_fd)
        if family.is_classic(role):
            run = functools.partial(self._run_classic, role, socks["send"])
        else:
            run = functools.partial(self._run, role, self._main_of(kind), socks)
        return fork_child(run, keep, family.NAMES[kind])

    def _run(self, role: str, main: Main, socks: Mapping[str, socket.socket]) -> int:
        """In the child."""
        # The terminal's signals are for start alone, which tells the others.
        os.setsid()
        seen = self._controls.read_as(role)
        boot = Boot(
            role=family.peer_name(role),
            home=self._options.home,
            single_user=self._options.single_user,
            accounts=self._ground.accounts,
            controls=parse_controls(seen, self._generation),
            default_delivery=self._options.default_delivery,
            socks=socks,
            files=seen,
            siblings=sum(
                family.kind(other) == family.kind(role) for other in self._plan.roles
            ),
        )
        return main(boot)

    def _run_classic(self, role: str, sock: socket.socket) -> int:
        """In the child."""
        os.setsid()
        path = self._options.classic[role.removeprefix(family.CLASSIC)]
        program = ClassicProgram(
            role=role,
            path=path,
            home=self._options.home,
            default_delivery=self._options.default_delivery,
            single_user=self._options.single_user,
        )
        return run_classic(program, self._ground.accounts, sock)

    def heard(self, child: Child, kind: bytes, body: bytes) -> None:
        """Do what send asks for, and listeners.

        Raises: RemoteProtocolError, after which the child's line is closed.
        """
        if kind == startwire.PONG and child is self._send:
            self._herald.answered(body)
            return
        may_ask = startwire.may_ask(family.kind(child.role), body)
        asked = body if kind == startwire.ASK and may_ask else b""
        match asked:
            case startwire.ASK_RELOAD:
                self.reload()
            case startwire.ASK_STOP:
                self.stop(detach=True, code=0)
            case startwire.ASK_STOP_ALL:
                self.stop(detach=False, code=0)
            case startwire.ASK_ISOLATED:
                self._add_isolated()
            case startwire.ASK_RUNNER:
                self._nursery.add(family.RUNNER)
            case _ if asked.startswith(startwire.ASK_KILL):
                peer = asked.removeprefix(startwire.ASK_KILL)
                self._kill(peer.decode("ascii", "replace"))
            case _:
                what = f"unexpected {kind!r} from {child.name}"
                _say(logline.warning(f"{what}: ending it"))
                raise RemoteProtocolError(what)

    def _kill(self, peer: str) -> None:
        """A child that does not answer send; it is replaced as one that died."""
        for child in self._nursery.living():
            if family.peer_name(child.role) == peer and child is not self._send:
                os.kill(child.pid, signal.SIGKILL)

    def _add_isolated(self) -> None:
        """Fork the remote that send asked for; it has done with the one before."""
        self._end_isolated()
        if self._nursery.stopping or not self._send.pid:
            return
        self._isolated += 1
        if not self._nursery.add_once(f"{family.ISOLATED}{self._isolated}"):
            delay_s = ISOLATED_RETRY_S * self._options.pace
            self._loop.call_later(delay_s, self._add_isolated)

    def _end_isolated(self) -> None:
        for child in self._nursery.living():
            if child.role.startswith(family.ISOLATED):
                self._nursery.stop(child)

    def tell_end(self, child: Child) -> None:
        """send finishes its work; enqueue may stay; others end with their line."""
        if child.line is None:
            return
        if child.role == family.SEND:
            child.line.send(frame(startwire.SIGNAL, startwire.SIGNAL_TERM))
            return
        if child.role == family.ENQUEUE and self._detach:
            child.line.send(frame(startwire.DETACH, b""))
            child.line.flush()
            self._nursery.release(child)
            return
        child.line.close("ending")

    def grace_s(self, child: Child) -> float:
        """Those who wait for deliveries get the time that deliveries get."""
        if child.role == family.SEND or family.is_classic(child.role):
            return timeoutterm(self._controls.files) + DRAIN_MARGIN_S
        return GRACE_S

    def ready(self, child: Child) -> None:
        """Tell outside once everybody has been so far."""
        if child is self._send:
            self._herald.send_is_new()
        if all(each.is_ready for each in self._nursery.children.values()):
            self._herald.ready()

    def ended(self, child: Child) -> None:
        """Go on with a stop; an isolated child serves one send only."""
        if child.role == family.SEND:
            self._end_isolated()
        self._advance()

    def gave_up(self, child: Child) -> None:
        """A child that never gets ready ends the tree."""
        _say(
            logline.alert(
                f"cannot start: {child.name} ended before it was ready, again and "
                "again; giving up"
            )
        )
        self.stop(detach=False, code=111)

    def say(self, line: bytes) -> None:
        """One line to the log."""
        _say(line)
