"""Deliveries that wait for a session where a destination takes no more of them.

Many servers limit the sessions of one client: one too many is told 421, or is not
let in, while the others go on. Such a delivery waits here for one of those to
become idle; meanwhile one attempt at a time looks whether there is room again.
Must not do: open sessions, run transactions, read the clock.
Source: RFC 5321 3.8 and 4.5.4.1. Unlike qmail-remote, which defers the message.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from qsend.core.smtptypes import Answer

PAUSE_S = 1.0
"""Time between two attempts to open a session at a destination that is full."""
BUSY_S = 10.0
"""How long to wait while this process has no session there: another one may have
them all, and gives them back after IDLE_SHORT_S of idleness."""
WAIT_S = 120.0
"""How long to wait for one of this process' own sessions: who waits holds a slot."""
SCARCE_S = 60.0
"""How long a destination counts as one that is short of sessions."""
IDLE_SHORT_S = 1.0
"""How long a session is kept idle where they are scarce: others wait for it."""


class Waiter(Protocol):
    """A delivery that can wait: what it was told, and since when (monotonic)."""

    refusal: Answer | None
    since_mono: float


W = TypeVar("W", bound=Waiter)


@dataclass(slots=True)
class _Gate(Generic[W]):
    sessions: int = 0
    refusal: Answer | None = None
    refused_mono: float = -math.inf
    waiting: deque[W] = field(default_factory=deque)


class Gates(Generic[W]):
    """The destinations of one process: how many sessions each has, and who waits."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, _Gate[W]] = {}

    def sessions(self, key: Hashable) -> int:
        """How many sessions are open."""
        gate = self._by_key.get(key)
        return 0 if gate is None else gate.sessions

    def opened(self, key: Hashable) -> None:
        """A session came up."""
        self._by_key.setdefault(key, _Gate()).sessions += 1

    def closed(self, key: Hashable) -> None:
        """A session that was `opened` is over."""
        self._by_key[key].sessions -= 1
        self._forget(key)

    def refused(self, key: Hashable, work: W, refusal: Answer, now_mono: float) -> None:
        """`work` was told that there is no room: it waits, before all others."""
        gate = self._by_key.setdefault(key, _Gate())
        gate.refusal, gate.refused_mono = refusal, now_mono
        if work.refusal is None:
            work.since_mono = now_mono
        work.refusal = refusal
        gate.waiting.appendleft(work)

    def join(self, key: Hashable, work: W, now_mono: float) -> bool:
        """Let `work` wait if others do, or if there was no room just now."""
        gate = self._by_key.get(key)
        if gate is None or not (gate.waiting or self.is_full(key, now_mono)):
            return False
        work.refusal, work.since_mono = gate.refusal, now_mono
        gate.waiting.append(work)
        return True

    def is_full(self, key: Hashable, now_mono: float) -> bool:
        """Whether somebody was refused less than PAUSE_S ago."""
        return now_mono < self._refused_mono(key) + PAUSE_S

    def is_scarce(self, key: Hashable, now_mono: float) -> bool:
        """Whether somebody was refused less than SCARCE_S ago."""
        return now_mono < self._refused_mono(key) + SCARCE_S

    def next(self, key: Hashable) -> W | None:
        """The one that has waited longest, who waits no longer."""
        gate = self._by_key.get(key)
        if gate is None or not gate.waiting:
            return None
        work = gate.waiting.popleft()
        self._forget(key)
        return work

    def waited_for(self) -> list[Hashable]:
        """The destinations somebody waits for."""
        return [key for key, gate in self._by_key.items() if gate.waiting]

    def overdue(self, key: Hashable, now_mono: float, busy_s: float) -> Iterator[W]:
        """Those who have waited too long; they wait no longer.

        Args:
            busy_s: how long that is without a session of our own.
        """
        limit_s = WAIT_S if self.sessions(key) else busy_s
        while (gate := self._by_key.get(key)) is not None and gate.waiting:
            if now_mono < gate.waiting[0].since_mono + limit_s:
                return
            yield gate.waiting.popleft()
            self._forget(key)

    def _refused_mono(self, key: Hashable) -> float:
        gate = self._by_key.get(key)
        return -math.inf if gate is None else gate.refused_mono

    def _forget(self, key: Hashable) -> None:
        gate = self._by_key[key]
        if not gate.sessions and not gate.waiting:
            del self._by_key[key]
