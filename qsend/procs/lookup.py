"""lookup: answers whose mail a local part is, for all who may ask.

uid qmailp, gid nofiles. Descriptors at entry: 0, 1, 2, and the sockets to start
and lspawn. Writes nothing. Exit codes: 0 when start has gone, 111 (from the fork)
after an exception.
Source: docs/ARCHITECTURE.md; qmail-getpw(8), qmail-users(5).
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping

from setproctitle import setproctitle

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import User
from qsend.core.ttlcache import TtlCache
from qsend.core.users import Outcome, is_fallback
from qsend.formats import frames, lookupwire
from qsend.formats.lookupwire import Answer
from qsend.sysio import clock, sandbox
from qsend.sysio.boot import Boot
from qsend.sysio.endpoint import Endpoint
from qsend.sysio.loop import Loop
from qsend.sysio.parent import Parent
from qsend.sysio.privilege import drop, harden
from qsend.sysio.userdb import UserDb

QUESTIONS_MAX = 4096
"""Said in HELLO: questions one peer may have outstanding."""

_CACHE_S = 5.0
"""How long an account that was found counts as known. Short, because changes to
passwd cannot be noticed; long enough for a burst of mail to one user."""
_CACHE_ALIAS_S = 1.0
"""What fell to alias is forgotten sooner: an account made meanwhile wants its mail."""
_CACHE_USERS = 10000

OTHERS_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Meant for start when they reach the whole process group: answers are needed
until start closes the line."""

_ASKERS = frozenset({"lspawn"})
"""The roles that may ask for users."""


class Lookup:
    """Serves questions until start goes away."""

    def __init__(self, boot: Boot) -> None:
        self._loop = Loop()
        for signum in OTHERS_SIGNALS:
            self._loop.on_signal(signum, lambda: None)
        self._db = UserDb(boot.home, boot.accounts, single_user=boot.single_user)
        self._cache: TtlCache[bytes, User] = TtlCache(_CACHE_USERS)
        self._endpoints: dict[str, Endpoint] = {}
        self._parent = Parent(
            self._loop,
            boot.socks["start"],
            on_close=self._loop.stop,
            on_controls=self._controls,
            on_peer=self._peer,
        )
        for role in _ASKERS & boot.socks.keys():
            self._peer(role, boot.socks[role])

    def run(self) -> None:
        """Serve; returns when start has closed its line."""
        self._parent.ready()
        self._loop.run()
        for endpoint in list(self._endpoints.values()):
            endpoint.close("exiting")
        self._db.close()
        self._loop.close()

    def _controls(self, _generation: int, _files: Mapping[str, bytes]) -> None:
        # No control file matters here, but HUP is how an operator says "look again".
        self._cache.clear()

    def _peer(self, role: str, sock: socket.socket) -> None:
        if role not in _ASKERS:
            sock.close()
            return
        old = self._endpoints.pop(role, None)
        if old is not None:
            old.close("replaced")
        endpoint = Endpoint(
            self._loop,
            sock,
            lambda kind, body, _fds: self._frame(endpoint, kind, body),
            lambda _reason: self._lost(role, endpoint),
        )
        self._endpoints[role] = endpoint
        endpoint.send(frames.hello(QUESTIONS_MAX))

    def _lost(self, role: str, endpoint: Endpoint) -> None:
        # start gives the replacement; it may have come before this end was noticed.
        if self._endpoints.get(role) is endpoint:
            del self._endpoints[role]

    def _frame(self, endpoint: Endpoint, kind: bytes, body: bytes) -> None:
        if kind == frames.HELLO:
            frames.parse_hello(body)
        elif kind == lookupwire.USER:
            question = lookupwire.parse_question(body)
            answer = Answer(
                number=question.number, outcome=self._outcome(question.local)
            )
            endpoint.send(lookupwire.render_answer(answer))
        else:
            raise RemoteProtocolError(f"unexpected frame {kind!r}")

    def _outcome(self, local: bytes) -> Outcome:
        if self._db.refresh():
            self._cache.clear()
        now_mono = clock.mono()
        known = self._cache.get(local, now_mono)
        if known is not None:
            return known
        outcome = self._db.find(local)
        if isinstance(outcome, User):
            lasts_s = _CACHE_ALIAS_S if is_fallback(outcome, local) else _CACHE_S
            self._cache.put(local, outcome, now_mono, lasts_s)
        return outcome


def main(boot: Boot) -> int:
    """Drop to qmailp, then answer until start goes away; the exit code."""
    setproctitle("qmail-lookup: qsend")
    drop(boot.accounts.qmailp)
    harden()
    sandbox.apply("lookup")
    Lookup(boot).run()
    return 0
