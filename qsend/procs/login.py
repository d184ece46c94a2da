"""login: judges logins, and makes children that are the mailboxes of POP3 clients.

uid root, gid root, no other group; one thread for ever, for it forks. Descriptors at
entry: 0, 1, 2, and the sockets to start, listeners and lookup. It reads no byte of a
client but the names and passwords that listeners frame, speaks no SQL, and writes
nothing but log lines. Exit codes: 0 when start has gone (sessions go on until pop3d
ends them), 111 after an exception.
Source: docs/ARCHITECTURE.md; checkpassword(8).
"""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from setproctitle import setproctitle

from qsend.core import loginlog, logline, users
from qsend.core.errors import ConfigError, RemoteProtocolError, TempFail
from qsend.core.family import kind
from qsend.core.loginbrake import LoginBrake
from qsend.core.lookups import Login, Verdict, Verification
from qsend.core.model import Account, User
from qsend.formats import frames, loginwire, lookupwire
from qsend.formats.loginwire import LoginOutcome
from qsend.formats.popcontrols import parse_pop
from qsend.sysio import clock, popchild, sandbox
from qsend.sysio.boot import Boot
from qsend.sysio.endpoint import Endpoint
from qsend.sysio.fork import reaped
from qsend.sysio.loginjudge import LoginJudge
from qsend.sysio.loop import Loop
from qsend.sysio.parent import Parent
from qsend.sysio.privilege import (
    CAP_DAC_READ_SEARCH,
    CAP_SETGID,
    CAP_SETUID,
    drop,
    harden,
    keep,
)

ATTEMPTS_MAX = 1000
"""Attempts at a time, those that wait for their turn among them."""
REFUSED_AFTER_S = 1.0
"""No refusal comes sooner: its time tells nothing of why, and guessing is slow."""

_OPENING = frozenset({"pop3d"})
"""The listeners whose logins become sessions."""
_LISTENERS = _OPENING | {"smtpd"}
_OTHERS_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Meant for start when they reach the whole process group."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Attempt:
    """One login without an outcome; `asker` and `number` are a listener's.

    `opens`: it wants a session, and not just to know.
    """

    asker: Endpoint
    number: int
    login: Login
    opens: bool
    began_mono: float
    is_wanted: bool = True

    @property
    def key(self) -> tuple[Endpoint, int]:
        """Listeners number their attempts each for itself."""
        return self.asker, self.number


class LoginServer:
    """Serves until start goes away."""

    def __init__(self, boot: Boot) -> None:
        self._accounts = boot.accounts
        self._single_user = boot.single_user
        settings = parse_pop(boot.files)
        self._log_logins = settings.log_logins
        self._loop = Loop()
        for signum in _OTHERS_SIGNALS:
            self._loop.on_signal(signum, lambda: None)
        self._loop.on_signal(signal.SIGCHLD, _reap)
        self._brake = LoginBrake()
        self._judge = LoginJudge(self._loop, system_logins=settings.system_logins)
        self._listeners: dict[str, Endpoint] = {}
        self._attempts: dict[tuple[Endpoint, int], _Attempt] = {}
        self._parent = Parent(
            self._loop,
            boot.socks["start"],
            on_close=self._loop.stop,
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

    def _controls(self, _generation: int, files: Mapping[str, bytes]) -> None:
        try:
            settings = parse_pop(files)
        except ConfigError as exc:
            # start has validated them; should it not agree, the old ones stay.
            os.write(2, logline.warning(f"qmail-login: keeping controls: {exc}"))
            return
        self._log_logins = settings.log_logins
        self._judge.system_logins = settings.system_logins

    def _peer(self, role: str, sock: socket.socket) -> None:
        if role == "lookup":
            self._judge.attach(sock)
        elif kind(role) in _LISTENERS:
            old = self._listeners.pop(role, None)
            if old is not None:
                old.close("replaced")
            opens = kind(role) in _OPENING
            self._listeners[role] = self._serve(sock, opens=opens)
        else:
            sock.close()

    def _serve(self, sock: socket.socket, *, opens: bool) -> Endpoint:
        endpoint = Endpoint(
            self._loop,
            sock,
            lambda kind, body, _fds: self._frame(endpoint, kind, body, opens=opens),
            lambda _reason: self._listener_lost(endpoint),
        )
        endpoint.send(frames.hello(ATTEMPTS_MAX))
        return endpoint

    def _listener_lost(self, endpoint: Endpoint) -> None:
        for attempt in list(self._attempts.values()):
            if attempt.asker is endpoint:
                self._give_up(attempt)

    def _give_up(self, attempt: _Attempt) -> None:
        attempt.is_wanted = False
        if self._attempts.get(attempt.key) is attempt:
            del self._attempts[attempt.key]

    def _frame(
        self, endpoint: Endpoint, kind: bytes, body: bytes, *, opens: bool
    ) -> None:
        if kind == frames.HELLO:
            frames.parse_hello(body)
        elif kind == lookupwire.VERIFY:
            number, login = lookupwire.parse_login(body)
            attempt = _Attempt(
                asker=endpoint,
                number=number,
                login=login,
                opens=opens,
                began_mono=clock.mono(),
            )
            self._try(attempt)
        elif kind == loginwire.CANCEL:
            cancelled = self._attempts.get((endpoint, loginwire.parse_cancel(body)))
            if cancelled is not None:
                self._give_up(cancelled)
        else:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from a listener")

    # One attempt

    def _try(self, attempt: _Attempt) -> None:
        if attempt.key in self._attempts:
            raise RemoteProtocolError(f"number {attempt.number} is in use")
        login, now_mono = attempt.login, attempt.began_mono
        if len(self._attempts) >= ATTEMPTS_MAX:
            self._answer(attempt, LoginOutcome.TEMPORARY)
            return
        wait_s = self._brake.wait_s(login.client, login.name, now_mono)
        if wait_s is None:
            self._log(login, Verdict.TROUBLE, b"too many failures; not looked at")
            self._answer(attempt, LoginOutcome.TOO_SOON)
            return
        self._attempts[attempt.key] = attempt
        if wait_s:
            self._loop.call_later(wait_s, lambda: self._begin(attempt))
        else:
            self._begin(attempt)

    def _begin(self, attempt: _Attempt) -> None:
        if attempt.is_wanted:
            self._judge.verify(
                attempt.login, lambda verification: self._judged(attempt, verification)
            )

    def _judged(self, attempt: _Attempt, verification: Verification) -> None:
        login, now_mono = attempt.login, clock.mono()
        user = verification.user
        if verification.verdict is Verdict.OK:
            self._brake.succeeded(login.client, login.name, now_mono)
            problem = self._refusal(user)
            if user is None or problem is not None:
                os.write(2, logline.alert(f"qmail-login: {problem}"))
                verification = Verification(verdict=Verdict.TROUBLE)
        self._log(login, verification.verdict, verification.text)
        match verification.verdict:
            case Verdict.OK:
                assert user is not None
                self._open(attempt, user)
            case Verdict.TROUBLE:
                self._answer(attempt, LoginOutcome.TEMPORARY)
            case Verdict.WRONG | Verdict.UNKNOWN | Verdict.SUSPENDED:
                self._brake.failed(login.client, login.name, now_mono)
                rest_s = attempt.began_mono + REFUSED_AFTER_S - now_mono
                self._loop.call_later(
                    max(0.0, rest_s),
                    lambda: self._answer(attempt, LoginOutcome.REFUSED),
                )

    def _refusal(self, user: User | None) -> str | None:
        """Why no session may be made for that user, although the password fits."""
        if user is None:
            return "lookup does not say whose mailbox it is"
        return users.refusal(user.uid, self._accounts, single_user=self._single_user)

    def _open(self, attempt: _Attempt, user: User) -> None:
        if not attempt.is_wanted:
            return
        if not attempt.opens:
            self._answer(attempt, LoginOutcome.OPEN)
            return
        try:
            child = popchild.fork_session(user)
        except TempFail as exc:
            os.write(2, logline.warning(f"qmail-login: {exc}"))
            self._answer(attempt, LoginOutcome.TEMPORARY)
            return
        self._answer(attempt, LoginOutcome.OPEN, child.sock.detach())

    def _answer(
        self, attempt: _Attempt, outcome: LoginOutcome, fd: int | None = None
    ) -> None:
        if attempt.is_wanted:
            self._give_up(attempt)
            attempt.asker.send(loginwire.render_outcome(attempt.number, outcome), fd)
        elif fd is not None:
            os.close(fd)

    def _log(self, login: Login, verdict: Verdict, text: bytes) -> None:
        if self._log_logins:
            line = loginlog.describe(login, Verification(verdict=verdict, text=text))
            os.write(2, line + b"\n")


def _reap() -> None:
    """Sessions and checks tell by their lines how they end; only the pid is left."""
    for _pid, _status in reaped():
        pass


def _capabilities() -> Iterable[int]:
    """To become users; and to read shadow where not even its owner may."""
    yield from (CAP_SETUID, CAP_SETGID)
    try:
        mode = os.stat("/etc/shadow").st_mode
    except OSError:
        return
    if not mode & stat.S_IRUSR:
        yield CAP_DAC_READ_SEARCH


def main(boot: Boot) -> int:
    """Give up the groups, then serve until start goes away; the exit code."""
    setproctitle("qmail-login: qsend")
    if not boot.single_user:
        drop(Account(uid=0, gid=0), ())
    harden()
    keep(_capabilities())
    sandbox.apply("login")
    LoginServer(boot).run()
    return 0
