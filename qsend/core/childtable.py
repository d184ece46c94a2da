"""What start does about each child: a total table, and the restart brake.

A child belongs to a unit: itself, or, for send and clean, the pair. A unit is
started again only when all of it has ended, so that no new send reads a queue
that an old clean is still changing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto


class State(Enum):
    """Where one child is in its life."""

    BACKOFF = auto()
    """Not running; to be forked when the unit's delay is over."""
    STARTING = auto()
    """Forked; has not yet said READY."""
    RUNNING = auto()
    """Serves."""
    DRAINING = auto()
    """Told to end because another of its unit has; will be forked again."""
    STOPPING = auto()
    """Told to end for good."""
    ONCE = auto()
    """Runs for one purpose; ends by itself and is not forked again."""
    GONE = auto()
    """Ended for good."""


class Event(Enum):
    """What may happen to a child."""

    FORKED = auto()
    READY = auto()
    EXIT = auto()
    """Ended, or could not be forked."""
    TIMER = auto()
    """The unit's delay is over."""
    UNIT_EXIT = auto()
    """Another of its unit has ended."""
    STOP = auto()
    """The tree ends."""


class Action(Enum):
    """What start does after a transition, in the order given."""

    FORK = auto()
    """Fork it; answer with FORKED, or EXIT when there is no process to be had."""
    TELL_LOST = auto()
    """Log that it was lost."""
    TELL_FAILED = auto()
    """The same, unless it ended with 0: it had been told to."""
    COUNT = auto()
    """Put the end into the unit's brake."""
    BRAKE = auto()
    """Put a fork that failed into the unit's brake."""
    END_UNIT = auto()
    """Give UNIT_EXIT to the others of its unit."""
    WAIT = auto()
    """When all of the unit is in BACKOFF: start the unit's delay."""
    END = auto()
    """Tell it to end, and kill it if it does not within its grace."""


_S, _E, _A = State, Event, Action

TABLE: dict[tuple[State, Event], tuple[State, tuple[Action, ...]]] = {
    (_S.BACKOFF, _E.FORKED): (_S.STARTING, ()),
    (_S.BACKOFF, _E.READY): (_S.BACKOFF, ()),
    (_S.BACKOFF, _E.EXIT): (_S.BACKOFF, (_A.BRAKE, _A.END_UNIT, _A.WAIT)),
    (_S.BACKOFF, _E.TIMER): (_S.BACKOFF, (_A.FORK,)),
    (_S.BACKOFF, _E.UNIT_EXIT): (_S.BACKOFF, ()),
    (_S.BACKOFF, _E.STOP): (_S.GONE, ()),
    (_S.STARTING, _E.FORKED): (_S.STARTING, ()),
    (_S.STARTING, _E.READY): (_S.RUNNING, ()),
    (_S.STARTING, _E.EXIT): (
        _S.BACKOFF,
        (_A.TELL_LOST, _A.COUNT, _A.END_UNIT, _A.WAIT),
    ),
    (_S.STARTING, _E.TIMER): (_S.STARTING, ()),
    (_S.STARTING, _E.UNIT_EXIT): (_S.DRAINING, (_A.END,)),
    (_S.STARTING, _E.STOP): (_S.STOPPING, (_A.END,)),
    (_S.RUNNING, _E.FORKED): (_S.RUNNING, ()),
    (_S.RUNNING, _E.READY): (_S.RUNNING, ()),
    (_S.RUNNING, _E.EXIT): (
        _S.BACKOFF,
        (_A.TELL_LOST, _A.COUNT, _A.END_UNIT, _A.WAIT),
    ),
    (_S.RUNNING, _E.TIMER): (_S.RUNNING, ()),
    (_S.RUNNING, _E.UNIT_EXIT): (_S.DRAINING, (_A.END,)),
    (_S.RUNNING, _E.STOP): (_S.STOPPING, (_A.END,)),
    (_S.DRAINING, _E.FORKED): (_S.DRAINING, ()),
    (_S.DRAINING, _E.READY): (_S.DRAINING, ()),
    # Its death may be why the rest of its unit ended, though noticed after it.
    (_S.DRAINING, _E.EXIT): (_S.BACKOFF, (_A.TELL_FAILED, _A.WAIT)),
    (_S.DRAINING, _E.TIMER): (_S.DRAINING, ()),
    (_S.DRAINING, _E.UNIT_EXIT): (_S.DRAINING, ()),
    # It has been told already; only what follows its end changes.
    (_S.DRAINING, _E.STOP): (_S.STOPPING, ()),
    (_S.STOPPING, _E.FORKED): (_S.STOPPING, ()),
    (_S.STOPPING, _E.READY): (_S.STOPPING, ()),
    (_S.STOPPING, _E.EXIT): (_S.GONE, ()),
    (_S.STOPPING, _E.TIMER): (_S.STOPPING, ()),
    (_S.STOPPING, _E.UNIT_EXIT): (_S.STOPPING, ()),
    (_S.STOPPING, _E.STOP): (_S.STOPPING, ()),
    (_S.ONCE, _E.FORKED): (_S.ONCE, ()),
    (_S.ONCE, _E.READY): (_S.ONCE, ()),
    (_S.ONCE, _E.EXIT): (_S.GONE, ()),
    (_S.ONCE, _E.TIMER): (_S.ONCE, (_A.FORK,)),
    (_S.ONCE, _E.UNIT_EXIT): (_S.ONCE, ()),
    (_S.ONCE, _E.STOP): (_S.STOPPING, (_A.END,)),
    (_S.GONE, _E.FORKED): (_S.GONE, ()),
    (_S.GONE, _E.READY): (_S.GONE, ()),
    (_S.GONE, _E.EXIT): (_S.GONE, ()),
    (_S.GONE, _E.TIMER): (_S.GONE, ()),
    (_S.GONE, _E.UNIT_EXIT): (_S.GONE, ()),
    (_S.GONE, _E.STOP): (_S.GONE, ()),
}
"""Every pair of state and event; what changes nothing is written out too."""

ALIVE = frozenset({_S.STARTING, _S.RUNNING, _S.DRAINING, _S.STOPPING, _S.ONCE})
"""States with a process (ONCE from its fork on)."""

SETTLED_S = 60
"""After running this long a child's end counts as its first."""
DELAY_MAX_S = 60
"""Longest delay before a restart: a minute is the longest that mail should wait
for a repair that has been made."""
BOOT_FAILURES_MAX = 5
"""Ends before READY, one after another, after which the tree gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """How often a unit ended of late.

    `ends` since it last ran for SETTLED_S; `boot_failures`: ends before READY
    since it last was READY.
    """

    ends: int = 0
    boot_failures: int = 0

    def not_forked(self) -> Brake:
        """The brake after a fork that failed.

        That says nothing of the child: however long the system has no room for
        another process, there is a next try.
        """
        return replace(self, ends=self.ends + 1)

    def after_end(self, *, was_ready: bool, ran_s: float) -> Brake:
        """The brake after one more end, `ran_s` seconds after READY or the fork."""
        if not was_ready:
            return replace(
                self, ends=self.ends + 1, boot_failures=self.boot_failures + 1
            )
        ends = 1 if ran_s >= SETTLED_S else self.ends + 1
        return Brake(ends=ends, boot_failures=0)

    @property
    def delay_s(self) -> int:
        """Seconds before the next start: 0 after one end, then 1, 2, 4 ... 60."""
        if self.ends <= 1:
            return 0
        return int(min(DELAY_MAX_S, 2 ** min(self.ends - 2, 16)))

    @property
    def gives_up(self) -> bool:
        """Whether the unit cannot be started at all."""
        return self.boot_failures >= BOOT_FAILURES_MAX
