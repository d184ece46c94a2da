"""Asking lookup from a program: blocks, one question after another.

What may be asked depends on the caller's uid: root everything, qmaild about hosts,
recipients and logins, qmailp about users, all others about themselves.
Source: docs/ARCHITECTURE.md; formats/lookupwire.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from qsend.core.errors import RemoteProtocolError, TempFail
from qsend.core.lookups import Locality, Login, Verification, YesNo
from qsend.core.users import Outcome
from qsend.formats import frames, lookupwire, turnwire
from qsend.formats.lookupwire import Question
from qsend.formats.turnwire import Stage, Turn
from qsend.sysio import unixsocket

T = TypeVar("T")

ANSWER_S = 30.0
"""lookup answers within seconds whatever the database does; a login in line for its
turn waits longest."""


class LookupRefused(TempFail):
    """This uid may not ask that."""


class LookupClient:
    """A connection to the lookup process of one home."""

    def __init__(self, home: str) -> None:
        """Connect.

        Raises: TempFail when it does not run, or the caller may not enter run/.
        """
        try:
            self._sock = unixsocket.connect_to(socket_path(home))
        except OSError as exc:
            raise TempFail(f"cannot ask qmail-lookup: {exc.strerror}") from exc
        self._sock.settimeout(ANSWER_S)

    def __enter__(self) -> LookupClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def user(self, local: bytes) -> Outcome:
        """Whose is a local part? Raises: TempFail, LookupRefused; so do all others."""
        body = self._about(lookupwire.USER, local, lookupwire.ANSWER)
        return _parsed(lookupwire.parse_answer, body).outcome

    def own(self, local: bytes) -> Outcome:
        """As `user`, if that is the caller itself; NoUser else."""
        body = self._about(lookupwire.OWN, local, lookupwire.ANSWER)
        return _parsed(lookupwire.parse_answer, body).outcome

    def locality(self, address: bytes) -> Locality:
        """What does the database say of an address?"""
        body = self._about(lookupwire.LOCALITY, address, lookupwire.PLACE)
        return _parsed(lookupwire.parse_place, body)[1]

    def rcpthost(self, host: bytes) -> YesNo:
        """Does the database have the host? False: control/rcpthosts decides."""
        body = self._about(lookupwire.RCPTHOST, host, lookupwire.VERDICT)
        return _parsed(lookupwire.parse_verdict, body)[1]

    def exists(self, address: bytes) -> YesNo:
        """Is there such a recipient, or is it somebody else's to say?"""
        body = self._about(lookupwire.EXISTS, address, lookupwire.VERDICT)
        return _parsed(lookupwire.parse_verdict, body)[1]

    def explain(self, address: bytes) -> bytes:
        """What will happen to mail for an address: JSON, see sysio/explain.py."""
        body = self._about(lookupwire.EXPLAIN, address, lookupwire.EXPLAINED)
        return _parsed(lookupwire.parse_explained, body)[1]

    def verify(self, login: Login) -> Verification:
        """Is a login right, by the mailbox table?"""
        body = self._ask(lookupwire.render_login(0, login), lookupwire.VERIFIED)
        return _parsed(lookupwire.parse_verified, body)[1]

    def turn(self, login: Login, stage: Stage) -> float | None:
        """How long a login has to wait, if it begins; None: it must not be judged."""
        turn = Turn(number=0, stage=stage, name=login.name, client=login.client)
        body = self._ask(turnwire.render_turn(turn), turnwire.PAUSE)
        return _parsed(turnwire.parse_pause, body)

    def _about(self, kind: bytes, about: bytes, answer: bytes) -> bytes:
        question = Question(number=0, local=about)
        return self._ask(lookupwire.render_question(question, kind), answer)

    def _ask(self, question: bytes, wanted: bytes) -> bytes:
        """The body of the answer; one question is open at a time."""
        try:
            self._sock.send(question)
            while packet := self._sock.recv(frames.PACKET_MAX):
                for kind, body in frames.split(packet):
                    if kind == wanted:
                        return body
                    if kind == lookupwire.REFUSED:
                        _, reason = lookupwire.parse_refused(body)
                        text = reason.decode("ascii", "replace")
                        raise LookupRefused(f"qmail-lookup refuses: {text}")
        except OSError as exc:
            raise TempFail(f"cannot ask qmail-lookup: {exc}") from exc
        except RemoteProtocolError as exc:
            raise TempFail(f"qmail-lookup: {exc}") from exc
        raise TempFail("qmail-lookup has hung up")


def socket_path(home: str) -> str:
    """Where lookup listens."""
    return f"{home}/run/lookup.sock"


def is_asked(home: str) -> bool:
    """Whether there is a database, so that lookup must be asked.

    Raises: TempFail when that cannot be seen.
    """
    try:
        os.stat(f"{home}/control/sqlserver")
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise TempFail(f"control/sqlserver: {exc.strerror}") from exc
    return True


def _parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    try:
        return parse(body)
    except RemoteProtocolError as exc:
        raise TempFail(f"qmail-lookup: {exc}") from exc
