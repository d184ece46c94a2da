"""Whether a login is right: the mailbox table by lookup, then the machine's accounts.

Belongs to a loop's thread in a root process without others. Every `verify` ends in
exactly one call back, however lookup and children end.
Source: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable

from qsend.core.errors import RemoteProtocolError, TempFail
from qsend.core.lookups import Login, Verdict, Verification
from qsend.formats import frames, lookupwire
from qsend.sysio import popchild
from qsend.sysio.endpoint import Endpoint
from qsend.sysio.loop import Loop, Timer

CHECKS_MAX = 4
"""Accounts of the machine judged at a time; a check is a process and a core."""
ANSWER_S = 60.0
"""lookup has its own time limits, which are shorter."""

OnVerified = Callable[[Verification], None]
Question = tuple[Login, OnVerified]


class LoginJudge:
    """Asks for verdicts."""

    def __init__(self, loop: Loop, *, system_logins: bool) -> None:
        """`system_logins`: accounts of the machine count, too; may be set anew."""
        self.system_logins = system_logins
        self._loop = loop
        self._lookup: Endpoint | None = None
        self._next_number = 0
        self._asked: dict[int, tuple[Login, OnVerified, Timer]] = {}
        self._checks = 0
        self._waiting: deque[Question] = deque()

    def attach(self, sock: socket.socket) -> None:
        """Ask lookup by this socket from now on."""
        if self._lookup is not None:
            self._lookup.close("replaced")
        self._lookup = Endpoint(
            self._loop,
            sock,
            lambda kind, body, _fds: self._frame(kind, body),
            lambda _reason: self._lost(),
        )
        self._lookup.send(frames.hello(1))

    def verify(self, login: Login, done: OnVerified) -> None:
        """Have `login` judged; `done` may be called before this returns."""
        if self._lookup is None or self._lookup.closed:
            done(_trouble("the user lookup is not running"))
            return
        self._next_number = number = (self._next_number + 1) % 2**32
        timer = self._loop.call_later(
            ANSWER_S,
            lambda: self._answer(number, _trouble("the user lookup does not answer")),
        )
        self._asked[number] = login, done, timer
        self._lookup.send(lookupwire.render_login(number, login))

    def _lost(self) -> None:
        for number in list(self._asked):
            self._answer(number, _trouble("the user lookup has ended"))

    def _frame(self, kind: bytes, body: bytes) -> None:
        if kind == frames.HELLO:
            frames.parse_hello(body)
        elif kind == lookupwire.VERIFIED:
            self._answer(*lookupwire.parse_verified(body))
        elif kind == lookupwire.REFUSED:
            number, text = lookupwire.parse_refused(body)
            self._answer(number, Verification(verdict=Verdict.TROUBLE, text=text))
        else:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from lookup")

    def _answer(self, number: int, verification: Verification) -> None:
        """What lookup has to say; numbers that are not asked any more are late."""
        asked = self._asked.pop(number, None)
        if asked is None:
            return
        login, done, timer = asked
        timer.cancel()
        if verification.verdict is Verdict.UNKNOWN and self.system_logins:
            self._waiting.append((login, done))
            self._check_more()
        else:
            done(verification)

    # Accounts of the machine

    def _check_more(self) -> None:
        while self._waiting and self._checks < CHECKS_MAX:
            login, done = self._waiting.popleft()
            try:
                child = popchild.fork_check(login)
            except TempFail as exc:
                done(_trouble(str(exc)))
                continue
            self._checks += 1
            self._await(child.sock, done)

    def _await(self, sock: socket.socket, done: OnVerified) -> None:
        _Check(self._loop, sock, lambda verification: self._checked(verification, done))

    def _checked(self, verification: Verification, done: OnVerified) -> None:
        self._checks -= 1
        done(verification)
        self._check_more()


class _Check:
    """The line of one child that judges; it says one thing, or dies."""

    def __init__(self, loop: Loop, sock: socket.socket, done: OnVerified) -> None:
        self._verification = _trouble("the check of the account failed")
        self._done = done
        self._endpoint = Endpoint(
            loop,
            sock,
            lambda kind, body, _fds: self._frame(kind, body),
            lambda _reason: self._done(self._verification),
        )

    def _frame(self, kind: bytes, body: bytes) -> None:
        if kind != lookupwire.VERIFIED:
            raise RemoteProtocolError(f"unexpected frame {kind!r}")
        _number, self._verification = lookupwire.parse_verified(body)


def _trouble(text: str) -> Verification:
    return Verification(verdict=Verdict.TROUBLE, text=text.encode())
