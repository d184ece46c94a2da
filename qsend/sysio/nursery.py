"""start's children as processes: forked, reaped, told to end, started again.

What is decided is decided by core/childtable.py; what a child runs and what is
said to it, by the Keeper. Must not read what children say.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from typing import Protocol

from qsend.core import logline
from qsend.core.childtable import TABLE, Action, Brake, Event, State
from qsend.core.errors import TempFail
from qsend.core.family import NAMES, Plan, is_classic, kind, peer_name
from qsend.formats import startwire
from qsend.formats.frames import frame
from qsend.sysio import clock
from qsend.sysio.endpoint import Descriptors, Endpoint
from qsend.sysio.fork import reaped
from qsend.sysio.loop import Loop, Timer
from qsend.sysio.wiring import Wiring

CLASSIC_READY_S = 1.0
"""A classic program cannot say READY; whoever lives this long counts as ready."""


class Child:
    """One child, with or without a process at the moment.

    `pid` is 0 without one; `line` leads to it; `kill` ends it by force.
    """

    def __init__(self, role: str, state: State) -> None:
        self.role = role
        self.state = state
        self.pid = 0
        self.line: Endpoint | None = None
        self.is_ready = False
        self.since_mono = 0.0
        self.status = 0
        self.kill: Timer | None = None

    @property
    def name(self) -> str:
        """What the log calls it."""
        return NAMES[kind(self.role)]


class Keeper(Protocol):
    """Whose children they are."""

    def spawn(self, role: str, socks: Mapping[str, socket.socket]) -> int:
        """Fork the child; "start" in `socks` is its line. Raises: TempFail."""

    def heard(self, child: Child, kind: bytes, body: bytes) -> None:
        """A child said something other than READY."""

    def tell_end(self, child: Child) -> None:
        """Ask the child to end; its line is open, if it has one."""

    def grace_s(self, child: Child) -> float:
        """How long after `tell_end` the child is killed."""

    def ready(self, child: Child) -> None:
        """A child serves now."""

    def ended(self, child: Child) -> None:
        """A child's process has ended, and all that follows is done."""

    def gave_up(self, child: Child) -> None:
        """A child cannot be started at all."""

    def say(self, line: bytes) -> None:
        """Write one log line."""


class Nursery:
    """All children of one tree."""

    def __init__(self, loop: Loop, plan: Plan, keeper: Keeper, pace: float) -> None:
        """`pace` multiplies every delay; 1.0 but in tests."""
        self.children = {role: Child(role, State.BACKOFF) for role in plan.roles}
        self.stopping = False
        self._loop = loop
        self._plan = plan
        self._keeper = keeper
        self._pace = pace
        self._wiring = Wiring()
        self._brakes: dict[tuple[str, ...], Brake] = {}
        self._timers: dict[tuple[str, ...], Timer] = {}
        self._do = {
            Action.FORK: self._fork,
            Action.TELL_LOST: self._tell_lost,
            Action.TELL_FAILED: self._tell_failed,
            Action.COUNT: self._count,
            Action.BRAKE: self._brake,
            Action.END_UNIT: self._end_unit,
            Action.WAIT: self._wait,
            Action.END: self._end,
        }

    def begin(self) -> None:
        """Fork everybody for the first time, in order."""
        for role in self._plan.roles:
            # A unit whose first could not be forked has its delay running.
            if self._plan.unit(role) not in self._timers:
                self.feed(self.children[role], Event.TIMER)

    def add_once(self, role: str) -> bool:
        """Fork a child that is not started again; False if that failed."""
        child = self.children[role] = Child(role, State.ONCE)
        self.feed(child, Event.TIMER)
        if child.pid == 0:
            del self.children[role]
        return child.pid != 0

    def add(self, role: str) -> None:
        """Fork a child that is not in the plan yet, and keep it alive as the others."""
        if role in self.children or self.stopping:
            return
        self._plan = self._plan.grown(role)
        child = self.children[role] = Child(role, State.BACKOFF)
        self.feed(child, Event.TIMER)

    def stop(self, child: Child) -> None:
        """Let a child end for good."""
        self.feed(child, Event.STOP)

    def release(self, child: Child) -> None:
        """Let a living child go on without us."""
        child.state = State.GONE
        self._forget_process(child)

    def living(self) -> Iterator[Child]:
        """The children that have a process."""
        return (child for child in list(self.children.values()) if child.pid)

    def feed(self, child: Child, event: Event) -> None:
        """Let something happen to a child."""
        child.state, actions = TABLE[child.state, event]
        for action in actions:
            self._do[action](child)

    def reap(self) -> None:
        """Take note of every child that has ended.

        Crashes first: clean ends by itself when send is gone, but what was lost
        is send.
        """
        ended = sorted(reaped(), key=lambda each: each[1] == 0)
        for pid, status in ended:
            for child in self.living():
                if child.pid == pid:
                    self._ended(child, status)

    def close(self) -> None:
        """Give back what waits for nobody any more."""
        self._wiring.close()
        for timer in self._timers.values():
            timer.cancel()

    def _ended(self, child: Child, status: int) -> None:
        child.status = status
        self._wiring.drop(child.role)
        self._forget_process(child)
        self.feed(child, Event.EXIT)
        if child.state is State.GONE and child.role not in self._plan.roles:
            del self.children[child.role]
        self._keeper.ended(child)

    def _forget_process(self, child: Child) -> None:
        child.pid = 0
        if child.kill is not None:
            child.kill.cancel()
            child.kill = None
        line, child.line = child.line, None
        if line is not None:
            line.close("ended")

    # What the table asks for

    def _fork(self, child: Child) -> None:
        alive = frozenset(other.role for other in self.living())
        try:
            ends = self._wiring.connect(child.role, self._plan.peers(child.role), alive)
        except OSError as exc:
            self._abandon(child, f"no sockets to be had: {exc.strerror}")
            return
        socks = {peer_name(role): sock for role, sock in ends.own.items()}
        try:
            child.pid = self._keeper.spawn(child.role, socks)
        except TempFail as exc:
            ends.close()
            self._abandon(child, str(exc))
            return
        for sock in ends.own.values():
            sock.close()
        child.is_ready = False
        child.since_mono = clock.mono()
        self._open_line(child, ends.line)
        self.feed(child, Event.FORKED)
        for peer, sock in ends.for_peers:
            self._introduce(self.children[peer], child.role, sock)

    def _abandon(self, child: Child, why: str) -> None:
        self._keeper.say(logline.warning(f"unable to start {child.name}: {why}"))
        self._wiring.drop(child.role)
        child.is_ready = False
        self.feed(child, Event.EXIT)

    def _open_line(self, child: Child, ours: socket.socket) -> None:
        if is_classic(child.role):
            ours.close()
            pid = child.pid
            self._loop.call_later(
                CLASSIC_READY_S * self._pace, lambda: self._ready(child, pid)
            )
            return
        child.line = Endpoint(
            self._loop,
            ours,
            lambda kind, body, fds: self._heard(child, kind, body, fds),
            lambda _reason: self._line_closed(child),
        )

    def _introduce(self, peer: Child, role: str, sock: socket.socket) -> None:
        if peer.line is None:
            sock.close()
            return
        told = frame(startwire.PEER, peer_name(role).encode())
        peer.line.send(told, sock.detach())

    def _heard(self, child: Child, kind: bytes, body: bytes, _fds: Descriptors) -> None:
        if kind == startwire.READY:
            self._ready(child, child.pid)
        else:
            self._keeper.heard(child, kind, body)

    def _ready(self, child: Child, pid: int) -> None:
        if pid and child.pid == pid and not child.is_ready:
            child.is_ready = True
            child.since_mono = clock.mono()
            self.feed(child, Event.READY)
            self._keeper.ready(child)

    def _line_closed(self, child: Child) -> None:
        # Either it is ending, or it broke the protocol and now sees our end closed.
        if child.pid and child.kill is None:
            self._kill_later(child)

    def _tell_lost(self, child: Child) -> None:
        code = os.waitstatus_to_exitcode(child.status)
        if self.stopping and code == 0:
            # It saw send's line close, and was reaped before send was: no loss.
            return
        how = f"killed by signal {-code}" if code < 0 else f"exit {code}"
        again = "" if self.stopping else ", starting it again"
        self._keeper.say(logline.warning(f"lost {child.name} ({how}){again}"))

    def _tell_failed(self, child: Child) -> None:
        if child.status:
            self._tell_lost(child)

    def _count(self, child: Child) -> None:
        unit = self._plan.unit(child.role)
        ran_s = (clock.mono() - child.since_mono) / self._pace
        brake = self._brakes.get(unit, Brake())
        brake = brake.after_end(was_ready=child.is_ready, ran_s=ran_s)
        self._brakes[unit] = brake
        if brake.gives_up and not self.stopping:
            self._keeper.gave_up(child)

    def _brake(self, child: Child) -> None:
        unit = self._plan.unit(child.role)
        self._brakes[unit] = self._brakes.get(unit, Brake()).not_forked()

    def _end_unit(self, child: Child) -> None:
        unit = self._plan.unit(child.role)
        for role in (*unit, *self._plan.followers(child.role)):
            if role != child.role:
                self.feed(self.children[role], Event.UNIT_EXIT)

    def _wait(self, child: Child) -> None:
        if self.stopping:
            self.feed(child, Event.STOP)
            return
        for unit in dict.fromkeys(map(self._plan.unit, self._plan.roles)):
            if unit not in self._timers and self._may_start(unit):
                delay_s = self._brakes.get(unit, Brake()).delay_s * self._pace
                self._timers[unit] = self._loop.call_later(
                    delay_s, functools.partial(self._start, unit)
                )

    def _may_start(self, unit: tuple[str, ...]) -> bool:
        """All of it has ended, and so has whoever still serves the one before."""
        if any(self.children[role].state is not State.BACKOFF for role in unit):
            return False
        leaders = [
            role for role in self._plan.roles if unit[0] in self._plan.followers(role)
        ]
        if any(self.children[role].state is State.DRAINING for role in leaders):
            return False
        return not any(
            self.children[role].pid and not self._wiring.leads("send", role)
            for role in self._plan.followers(unit[0])
        )

    def _start(self, unit: tuple[str, ...]) -> None:
        del self._timers[unit]
        for role in unit:
            self.feed(self.children[role], Event.TIMER)
            if not self.children[role].pid:
                return

    def _end(self, child: Child) -> None:
        self._kill_later(child)
        self._keeper.tell_end(child)

    def _kill_later(self, child: Child) -> None:
        if child.kill is not None:
            return
        pid = child.pid

        def kill() -> None:
            # Not yet reaped, so the number is still this child's.
            if child.pid == pid:
                text = f"{child.name} does not end, killing it"
                self._keeper.say(logline.warning(text))
                os.kill(pid, signal.SIGKILL)

        child.kill = self._loop.call_later(
            self._keeper.grace_s(child) * self._pace, kill
        )
