"""Whether the queue manager is alive, as far as start can tell.

start asks send at regular times; send answers from its loop. What is told to a
service manager's watchdog follows from the answers.
Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

from dataclasses import dataclass

from qsend.core.childtable import State

ABSENT_MAX_S = 600.0
"""A send that is not there yet counts as alive so long: it may have a queue of
millions to read, and the tree ends by itself when it cannot be started."""
BEATS = 4
"""Questions in the time that a watchdog waits, so that one may be late."""
PERIOD_MAX_S = 30.0
"""A status is never older."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What is known: whether send owes an answer, and since when it is away."""

    is_asked: bool = False
    absent_since_mono: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What start does at one of the regular times, and knows after it."""

    pulse: Pulse
    asks: bool = False
    is_alive: bool = False


def period_s(watchdog_s: float | None) -> float:
    """Seconds between two beats."""
    if watchdog_s is None:
        return PERIOD_MAX_S
    return min(PERIOD_MAX_S, watchdog_s / BEATS)


def beat(pulse: Pulse, state: State, now_mono: float, *, stopping: bool) -> Beat:
    """What to do now.

    A running send has to answer; until it does, nobody is told that all is well.
    One that ends, or is yet to come, has time limits of its own.
    """
    if stopping:
        return Beat(pulse=pulse, is_alive=True)
    if state is State.RUNNING:
        return Beat(pulse=Pulse(is_asked=True), asks=not pulse.is_asked)
    since_mono = pulse.absent_since_mono
    if since_mono is None:
        since_mono = now_mono
    return Beat(
        pulse=Pulse(absent_since_mono=since_mono),
        is_alive=now_mono - since_mono < ABSENT_MAX_S,
    )
