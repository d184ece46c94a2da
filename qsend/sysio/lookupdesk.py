"""Peers of lookup: what each may ask, how much at once, and the answers.

A peer is a process of the tree, known by its role, or a client of run/lookup.sock,
known by the uid that the kernel reports. Whoever asks what it may not is told so
and cut off.
Source: docs/ARCHITECTURE.md; unix(7) SO_PEERCRED.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from qsend.core.errors import RemoteProtocolError
from qsend.core.family import kind as kind_of
from qsend.core.loginbrake import LoginBrake
from qsend.core.lookups import Verdict, Verification
from qsend.core.model import Accounts, User
from qsend.core.rewrite import Rules
from qsend.core.users import NoUser, Outcome, Trouble
from qsend.formats import frames, lookupwire, turnwire
from qsend.formats.lookupwire import Answer, Question
from qsend.formats.turnwire import Stage
from qsend.sysio import clock
from qsend.sysio.acceptor import Acceptor
from qsend.sysio.callers import admit
from qsend.sysio.endpoint import Endpoint, Poller
from qsend.sysio.explain import explain
from qsend.sysio.loop import Loop
from qsend.sysio.recipient import exists
from qsend.sysio.resolver import Resolver
from qsend.sysio.turnbudget import TurnBudget
from qsend.sysio.verifier import Verifier

QUESTIONS_MAX = 4096
"""Said in HELLO: questions one process of the tree may have outstanding."""
CLIENT_QUESTIONS_MAX = 64
CLIENTS_MAX = 200
"""Clients of the socket with a uid of ours, and as many with others: whatever users
open together, nobody of ours is kept out."""
CLIENTS_PER_UID_MAX = 50
"""Of the latter, so that no single user keeps all others out."""

_UNKNOWN = b"the database is only just becoming known; try again"
_OF_DATABASE = frozenset({lookupwire.LOCALITY, lookupwire.RCPTHOST})
"""What is asked by those alone who know that there is a database. Should this process
not have heard of it yet, as in the moment of a HUP, "no row" would be a lie."""
_ACCEPT_PER_TURN = 16
_BACKLOG_MAX = 16
"""Packets of answers that a peer has not read; more, and it never will."""

_ALL = lookupwire.ABOUT | {lookupwire.VERIFY, turnwire.TURN}
_LISTENING = frozenset({lookupwire.RCPTHOST, lookupwire.EXISTS, lookupwire.VERIFY})
BY_ROLE: Mapping[str, frozenset[bytes]] = {
    "send": frozenset({lookupwire.LOCALITY}),
    "lspawn": frozenset({lookupwire.USER}),
    "login": frozenset({lookupwire.VERIFY}),
    "smtpd": _LISTENING,
    "qmtpd": _LISTENING,
    "qmqpd": _LISTENING,
    "pop3d": _LISTENING,
}
"""What the processes of the tree may ask, by their kind."""
_OWN_ALONE = frozenset({lookupwire.OWN})
_TOLD_USERS = frozenset({"login"})
"""Who learns whose mailbox a login opens."""
_TOLD_STATE = frozenset({"send"})


@dataclass(slots=True, kw_only=True, eq=False)
class _Peer:
    """Somebody who asks; `uid` is that of a client of the socket, `waiting` counts the
    questions without an answer."""

    endpoint: Endpoint
    may_ask: frozenset[bytes]
    is_told_users: bool
    most: int
    uid: int | None = None
    waiting: int = 0


class LookupDesk:
    """Takes questions and gives answers; belongs to the loop's thread."""

    def __init__(
        self, loop: Loop, resolver: Resolver, verifier: Verifier, accounts: Accounts
    ) -> None:
        self.rules = Rules(envnoathost=b"")
        self.default_delivery = b""
        self._loop = loop
        self._budget = TurnBudget(loop)
        self._resolver = resolver
        self._verifier = verifier
        self._accounts = accounts
        self._by_role: dict[str, _Peer] = {}
        self._clients: dict[_Peer, int] = {}
        self._acceptor: Acceptor | None = None
        self._brake = LoginBrake()
        self._is_missed = False

    def attach(self, role: str, sock: socket.socket) -> None:
        """Serve a process of the tree, in place of an earlier one of that role."""
        may_ask = BY_ROLE.get(kind_of(role))
        if may_ask is None:
            sock.close()
            return
        old = self._by_role.pop(role, None)
        if old is not None:
            old.endpoint.close("replaced")
        peer = self._serve(
            self._loop,
            sock,
            may_ask,
            is_told_users=role in _TOLD_USERS,
            most=QUESTIONS_MAX,
            on_close=lambda peer: self._role_lost(role, peer),
        )
        self._by_role[role] = peer
        if role in _TOLD_STATE:
            self._tell_state(peer, self._resolver.trouble)

    def listen(self, sock: socket.socket) -> None:
        """Serve the clients of a listening socket, owning it."""
        self._acceptor = Acceptor(self._loop, sock, self._welcome, _ACCEPT_PER_TURN)

    def tell_state(self, trouble: bytes | None) -> None:
        """The database does not answer any more (why), or does again (None)."""
        for role in _TOLD_STATE & self._by_role.keys():
            self._tell_state(self._by_role[role], trouble)

    def configured(self) -> None:
        """There may be a database now: whoever was told to wait for it asks again."""
        if self._is_missed and self._resolver.has_database:
            self._is_missed = False
            self.tell_state(self._resolver.trouble)

    def close(self) -> None:
        """Close every line."""
        for peer in [*self._by_role.values(), *self._clients]:
            peer.endpoint.close("exiting")
        listen = self._acceptor.release() if self._acceptor is not None else None
        if listen is not None:
            listen.close()

    # Peers

    def _serve(
        self,
        poller: Poller,
        sock: socket.socket,
        may_ask: frozenset[bytes],
        *,
        is_told_users: bool,
        most: int,
        on_close: Callable[[_Peer], None],
        uid: int | None = None,
    ) -> _Peer:
        endpoint = Endpoint(
            poller,
            sock,
            lambda kind, body, _fds: self._frame(peer, kind, body),
            lambda _reason: on_close(peer),
            max_packets=1 if poller is self._budget else 16,
        )
        peer = _Peer(
            endpoint=endpoint,
            may_ask=may_ask,
            is_told_users=is_told_users,
            most=most,
            uid=uid,
        )
        endpoint.send(frames.hello(most))
        return peer

    def _role_lost(self, role: str, peer: _Peer) -> None:
        # start gives the replacement; it may have come before this end was noticed.
        if self._by_role.get(role) is peer:
            del self._by_role[role]

    def _client_lost(self, peer: _Peer) -> None:
        self._clients.pop(peer, None)

    def _welcome(self, sock: socket.socket) -> None:
        uid = admit(sock, self._has_room)
        if uid is None:
            return
        peer = self._serve(
            self._budget,
            sock,
            self._allowed(uid),
            is_told_users=self._is_master(uid),
            most=CLIENT_QUESTIONS_MAX,
            on_close=self._client_lost,
            uid=uid,
        )
        self._clients[peer] = uid

    def _has_room(self, uid: int) -> bool:
        is_ours = self._is_ours(uid)
        counted = [
            each for each in self._clients.values() if self._is_ours(each) is is_ours
        ]
        if len(counted) >= CLIENTS_MAX:
            return False
        return is_ours or counted.count(uid) < CLIENTS_PER_UID_MAX

    def _is_ours(self, uid: int) -> bool:
        """Whether it may ask of others than itself."""
        return self._allowed(uid) != _OWN_ALONE

    def _is_master(self, uid: int) -> bool:
        """root, or the one user of single-user mode."""
        return uid in (0, self._accounts.root.uid)

    def _allowed(self, uid: int) -> frozenset[bytes]:
        if self._is_master(uid):
            return _ALL
        if uid == self._accounts.qmaild.uid:
            return _LISTENING
        if uid == self._accounts.qmailp.uid:
            return frozenset({lookupwire.USER, lookupwire.OWN})
        return _OWN_ALONE

    @staticmethod
    def _tell_state(peer: _Peer, trouble: bytes | None) -> None:
        peer.endpoint.send(lookupwire.render_state(trouble))

    # Questions

    def _frame(self, peer: _Peer, kind: bytes, body: bytes) -> None:
        if kind == frames.HELLO:
            frames.parse_hello(body)
            return
        if kind not in _ALL:
            raise RemoteProtocolError(f"unexpected frame {kind!r}")
        if kind not in peer.may_ask:
            self._refuse(peer, body, b"you may not ask this")
        elif peer.waiting >= peer.most or peer.endpoint.backlog > _BACKLOG_MAX:
            self._refuse(peer, body, b"too many questions at once")
        elif kind == lookupwire.VERIFY:
            self._verify(peer, body)
        elif kind == turnwire.TURN:
            self._turn(peer, body)
        else:
            self._ask(peer, kind, lookupwire.parse_question(body))

    def _refuse(self, peer: _Peer, body: bytes, reason: bytes) -> None:
        number = lookupwire.parse_number(body)
        peer.endpoint.send(lookupwire.render_refused(number, reason))
        peer.endpoint.flush()
        peer.endpoint.close(reason.decode())

    def _ask(self, peer: _Peer, kind: bytes, question: Question) -> None:
        if kind in _OF_DATABASE and not self._resolver.has_database:
            self._miss(peer, kind, question.number)
            return
        number, about = question.number, question.local
        reply = self._reply(peer)
        if kind == lookupwire.USER:
            self._resolver.user(
                about,
                lambda outcome: reply(
                    lookupwire.render_answer(Answer(number=number, outcome=outcome))
                ),
            )
        elif kind == lookupwire.OWN:
            self._resolver.user(
                about,
                lambda outcome: reply(
                    lookupwire.render_answer(
                        Answer(number=number, outcome=_own(outcome, peer.uid))
                    )
                ),
            )
        elif kind == lookupwire.LOCALITY:
            self._resolver.locality(
                about, lambda place: reply(lookupwire.render_place(number, place))
            )
        elif kind == lookupwire.RCPTHOST:
            self._resolver.rcpthost(
                about, lambda verdict: reply(lookupwire.render_verdict(number, verdict))
            )
        elif kind == lookupwire.EXISTS:
            exists(
                about,
                self.rules,
                self._resolver,
                lambda verdict: reply(lookupwire.render_verdict(number, verdict)),
            )
        else:
            explain(
                about,
                self.rules,
                self._resolver,
                self.default_delivery,
                lambda trace: reply(lookupwire.render_explained(number, trace)),
            )

    def _miss(self, peer: _Peer, kind: bytes, number: int) -> None:
        self._is_missed = True
        if peer in (self._by_role.get(role) for role in _TOLD_STATE):
            self._tell_state(peer, _UNKNOWN)
        trouble = Trouble(text=_UNKNOWN)
        if kind == lookupwire.LOCALITY:
            peer.endpoint.send(lookupwire.render_place(number, trouble))
        else:
            peer.endpoint.send(lookupwire.render_verdict(number, trouble))

    def _verify(self, peer: _Peer, body: bytes) -> None:
        number, login = lookupwire.parse_login(body)
        reply = self._reply(peer)
        if peer.uid is not None and not self._resolver.has_database:
            # A program that has seen control/sqlserver; login asks in any case.
            unknown = Verification(verdict=Verdict.TROUBLE, text=_UNKNOWN)
            reply(lookupwire.render_verified(number, unknown))
            return

        def verified(verification: Verification) -> None:
            if not peer.is_told_users:
                verification = replace(verification, user=None)
            reply(lookupwire.render_verified(number, verification))

        self._verifier.verify(login, verified)

    def _turn(self, peer: _Peer, body: bytes) -> None:
        """One attempt of a program that asks us for no more than this."""
        turn, now_mono = turnwire.parse_turn(body), clock.mono()
        wait_s: float | None = 0.0
        match turn.stage:
            case Stage.BEGINS:
                wait_s = self._brake.wait_s(turn.client, turn.name, now_mono)
            case Stage.WRONG:
                self._brake.failed(turn.client, turn.name, now_mono)
            case Stage.RIGHT:
                self._brake.succeeded(turn.client, turn.name, now_mono)
        peer.endpoint.send(turnwire.render_pause(turn.number, wait_s))

    def _reply(self, peer: _Peer) -> Callable[[bytes], None]:
        peer.waiting += 1

        def reply(frame: bytes) -> None:
            peer.waiting -= 1
            peer.endpoint.send(frame)

        return reply


def _own(outcome: Outcome, uid: int | None) -> Outcome:
    """What somebody is told who asks about itself."""
    if isinstance(outcome, Trouble):
        # The reason may name a row of somebody else.
        return Trouble(text=b"users cannot be looked up now; the log says why")
    if isinstance(outcome, User) and outcome.uid == uid:
        return outcome
    return NoUser(text=b"not yours")
