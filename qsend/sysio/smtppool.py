"""Idle SMTP sessions, by destination, waiting for more mail.

Must not do: open sessions, run transactions.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from qsend.core.smtptable import State

IDLE_MAX = 1000
"""Idle sessions kept in all, about 9 KiB each; the one idle for longest goes first.
A thousand destinations in turn find theirs again."""
HOST_MAX = 20
"""Idle sessions with one host from which those of other destinations than the last
one leave: large hosts serve thousands, and count the sessions of a client."""


class Idler(Protocol):
    """A session as far as it is kept here."""

    @property
    def state(self) -> State:
        """IDLE until somebody ends it."""

    @property
    def address(self) -> str:
        """The host's."""

    def leave(self) -> None:
        """Say QUIT."""


S = TypeVar("S", bound=Idler)


class Pool(Generic[S]):
    """Keeps sessions while they are idle; the last one put is the first taken."""

    def __init__(self, limit: int = IDLE_MAX) -> None:
        self._limit = limit
        self._key_by_session: dict[S, Hashable] = {}  # oldest first
        self._by_key: dict[Hashable, list[S]] = {}
        self._by_host: dict[str, dict[S, None]] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._key_by_session)

    def put(self, key: Hashable, session: S) -> None:
        """Keep an idle session for `key`; the oldest leaves when there are too many."""
        self._key_by_session[session] = key
        self._by_key.setdefault(key, []).append(session)
        host = self._by_host.setdefault(session.address, {})
        host[session] = None
        if len(self._key_by_session) > self._limit:
            self._send_away(next(iter(self._key_by_session)))
        elif len(host) > HOST_MAX:
            oldest = next(iter(host))
            # A destination that has many of its own is about to use them again.
            if self._key_by_session[oldest] != key:
                self._send_away(oldest)

    def take(self, key: Hashable) -> S | None:
        """An idle session for `key`, which is no longer kept here."""
        while (sessions := self._by_key.get(key)) is not None:
            session = sessions[-1]
            self.discard(session)
            if session.state is State.IDLE:  # else the peer just left
                return session
        return None

    def leave_all(self) -> None:
        """Say QUIT to every idle session; none is kept any more."""
        for session in tuple(self._key_by_session):
            self._send_away(session)

    def discard(self, session: S) -> None:
        """Forget a session, kept or not."""
        key = self._key_by_session.pop(session, None)
        if key is None:
            return
        sessions = self._by_key[key]
        sessions.remove(session)
        if not sessions:
            del self._by_key[key]
        host = self._by_host[session.address]
        del host[session]
        if not host:
            del self._by_host[session.address]

    def _send_away(self, session: S) -> None:
        self.discard(session)
        session.leave()
