"""Idle SMTP sessions, by destination, waiting for more mail.

Must not do: open sessions, run transactions.
"""

from __future__ import annotations

from collections.abc import Hashable

from qsend.core.smtptable import State
from qsend.sysio.smtpsession import Session

IDLE_MAX = 100
"""Idle sessions kept in all, a small part of a process' descriptors; the one
idle for longest goes first."""


class Pool:
    """Keeps sessions while they are idle; the last one put is the first taken."""

    def __init__(self, limit: int = IDLE_MAX) -> None:
        self._limit = limit
        self._key_by_session: dict[Session, Hashable] = {}  # oldest first
        self._by_key: dict[Hashable, list[Session]] = {}

    def __len__(self) -> int:
        return len(self._key_by_session)

    def put(self, key: Hashable, session: Session) -> None:
        """Keep an idle session for `key`; the oldest leaves when there are too many."""
        self._key_by_session[session] = key
        self._by_key.setdefault(key, []).append(session)
        if len(self._key_by_session) > self._limit:
            oldest = next(iter(self._key_by_session))
            self.discard(oldest)
            oldest.leave()

    def take(self, key: Hashable) -> Session | None:
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
            self.discard(session)
            session.leave()

    def discard(self, session: Session) -> None:
        """Forget a session, kept or not."""
        key = self._key_by_session.pop(session, None)
        if key is None:
            return
        sessions = self._by_key[key]
        sessions.remove(session)
        if not sessions:
            del self._by_key[key]
