"""Which child serves which local delivery, and what has to wait.

One child serves one account (uid and gid) and is kept while there is work. At
most `per_home` deliveries of one home are with children at a time; the rest wait
here in order. A delivery that must be alone gets a child that serves nothing
else. The caller forks, passes on and closes; every method that can make something
happen returns the steps in order.
Source: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NewType

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import Account, DelId

ChildId = NewType("ChildId", int)
"""Serial of a local child, from 1 in each run of lspawn; never reused."""

KEPT_CHILDREN = 64
"""Children kept when some of them are idle. Each costs some megabytes; a fork
costs milliseconds, which a burst of mail to few accounts need not pay twice."""

IDLE_S = 30.0
"""How long an idle child is kept: longer than the gaps of a burst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One resolved delivery; `home` is what the limit of one user counts by."""

    delid: DelId
    account: Account
    home: bytes
    alone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Make a child for `account`; if that fails, call `lost` with it."""

    child: ChildId
    account: Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Give:
    """Pass the delivery to the child."""

    child: ChildId
    delid: DelId


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Close the child's line; nothing more will be given to it."""

    child: ChildId


Step = Fork | Give | End


@dataclass(slots=True, kw_only=True)
class _Child:
    account: Account
    alone: bool
    is_retired: bool = False
    idle_since_mono: float = 0.0
    running: dict[DelId, bytes] = field(default_factory=dict)
    """Its deliveries and their homes."""


class LocalPool:
    """Children, what each of them has, and what waits."""

    def __init__(self, per_home: int, kept: int = KEPT_CHILDREN) -> None:
        """Limits: deliveries of one home at a time (at least 1), children kept."""
        self._per_home = max(1, per_home)
        self._kept = kept
        self._next_child = 1
        # In order of last use, so that the first idle one is the one to end.
        self._children: dict[ChildId, _Child] = {}
        self._by_account: dict[Account, ChildId] = {}
        self._running_by_home: dict[bytes, int] = {}
        self._waiting_by_home: dict[bytes, deque[Work]] = {}

    @property
    def children(self) -> int:
        """Children that may still get work or have some."""
        return len(self._children)

    def add(self, work: Work) -> list[Step]:
        """Give the delivery to a child, or keep it waiting."""
        waiting = self._waiting_by_home.get(work.home)
        if self._running_by_home.get(work.home, 0) >= self._per_home:
            if waiting is None:
                waiting = self._waiting_by_home[work.home] = deque()
            waiting.append(work)
            return []
        return self._start(work)

    def done(self, child: ChildId, delid: DelId, now_mono: float) -> list[Step]:
        """The child has reported on the delivery.

        Raises: RemoteProtocolError when it was not given that delivery, or has
            reported on it before; the caller drops the child then.
        """
        entry = self._children.get(child)
        if entry is None or delid not in entry.running:
            raise RemoteProtocolError(f"a report for delivery {delid}, not its own")
        home = entry.running.pop(delid)
        steps = self._free(home)
        # What started in its place may have needed the room of this child.
        if not entry.running and child in self._children:
            steps += self._idle(child, entry, now_mono)
        return steps

    def lost(self, child: ChildId) -> tuple[list[DelId], list[Step]]:
        """The child is gone: its deliveries, and what may start in their place."""
        entry = self._children.get(child)
        if entry is None:
            return [], []
        self._remove(child, entry)
        steps: list[Step] = []
        for home in entry.running.values():
            steps += self._free(home)
        return list(entry.running), steps

    def cancel_waiting(self) -> list[DelId]:
        """Forget everything that waits; the deliveries that were forgotten."""
        waiting, self._waiting_by_home = self._waiting_by_home, {}
        return [work.delid for queue in waiting.values() for work in queue]

    def retire(self, per_home: int) -> list[Step]:
        """New settings: children with work end after it, idle ones at once."""
        self._per_home = max(1, per_home)
        self._by_account.clear()
        steps: list[Step] = []
        for child, entry in list(self._children.items()):
            entry.is_retired = True
            if not entry.running:
                steps += self._end(child, entry)
        for home in list(self._waiting_by_home):
            steps += self._fill(home)
        return steps

    def expire(self, now_mono: float) -> list[Step]:
        """End the children that have been idle for IDLE_S."""
        steps: list[Step] = []
        for child, entry in self._idle_children():
            if entry.idle_since_mono + IDLE_S <= now_mono:
                steps += self._end(child, entry)
        return steps

    def next_expiry_mono(self) -> float | None:
        """When `expire` has something to do; None while no child is idle."""
        since = [entry.idle_since_mono for _, entry in self._idle_children()]
        return min(since) + IDLE_S if since else None

    def _start(self, work: Work) -> list[Step]:
        steps: list[Step] = []
        child = None if work.alone else self._by_account.get(work.account)
        if child is None:
            steps += self._make_room()
            child = self._fork(work)
            steps.append(Fork(child=child, account=work.account))
        entry = self._children.pop(child)
        self._children[child] = entry
        entry.running[work.delid] = work.home
        running = self._running_by_home.get(work.home, 0)
        self._running_by_home[work.home] = running + 1
        return [*steps, Give(child=child, delid=work.delid)]

    def _fork(self, work: Work) -> ChildId:
        child = ChildId(self._next_child)
        self._next_child += 1
        self._children[child] = _Child(account=work.account, alone=work.alone)
        if not work.alone:
            self._by_account[work.account] = child
        return child

    def _make_room(self) -> list[Step]:
        """End idle children until one more may be kept.

        Busy ones may exceed the number: how many there are is the bound on
        deliveries, which is send's, and waiting for them could take for ever.
        """
        steps: list[Step] = []
        excess = len(self._children) + 1 - self._kept
        if excess > 0:
            for child, entry in self._idle_children()[:excess]:
                steps += self._end(child, entry)
        return steps

    def _free(self, home: bytes) -> list[Step]:
        left = self._running_by_home[home] - 1
        if left:
            self._running_by_home[home] = left
        else:
            del self._running_by_home[home]
        return self._fill(home)

    def _fill(self, home: bytes) -> list[Step]:
        """Start what waits for the home, as far as its limit allows."""
        steps: list[Step] = []
        waiting = self._waiting_by_home.get(home)
        while waiting and self._running_by_home.get(home, 0) < self._per_home:
            steps += self._start(waiting.popleft())
        if waiting is not None and not waiting:
            del self._waiting_by_home[home]
        return steps

    def _idle(self, child: ChildId, entry: _Child, now_mono: float) -> list[Step]:
        """What becomes of a child that has nothing left to do."""
        entry.idle_since_mono = now_mono
        if entry.alone or entry.is_retired or len(self._children) > self._kept:
            return self._end(child, entry)
        return []

    def _idle_children(self) -> list[tuple[ChildId, _Child]]:
        """Idle children, the least recently used first."""
        return [pair for pair in self._children.items() if not pair[1].running]

    def _end(self, child: ChildId, entry: _Child) -> list[Step]:
        self._remove(child, entry)
        return [End(child=child)]

    def _remove(self, child: ChildId, entry: _Child) -> None:
        del self._children[child]
        if self._by_account.get(entry.account) == child:
            del self._by_account[entry.account]
