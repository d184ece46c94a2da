"""A poll loop for one process: descriptors, timers, signals, end-of-turn hooks.

Used by every process that is not on asyncio. Callbacks run on the loop's own
thread, one at a time; an exception from a callback leaves `run` (a process ends
rather than going on half-broken). Threads talk to the loop with `call_soon`.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import socket
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable

from qsend.sysio import clock

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Timer:
    """A call due at a monotonic time; `cancel` makes it not happen."""

    __slots__ = ("callback", "due_mono")

    def __init__(self, due_mono: float, callback: Callable[[], None]) -> None:
        self.due_mono = due_mono
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Drop the call; harmless when it already happened."""
        self.callback = None


class Loop:
    """Waits for descriptors, timers and signals and calls back."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._serial = itertools.count()
        self._turn_hooks: list[Callable[[], None]] = []
        self._soon: deque[Callable[[], None]] = deque()
        self._signals: dict[int, Callable[[], None]] = {}
        self._stopping = False
        self._thread = 0
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.register(self._wake_read, READ, self._drain_wake)

    def register(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call `callback(ready mask)` whenever `fd` is ready for `mask`."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        """Wait for another mask on a registered descriptor."""
        self._epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """Stop waiting for `fd`; call it before closing the descriptor."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back once, `delay_s` seconds from now."""
        timer = Timer(clock.mono() + delay_s, callback)
        heapq.heappush(self._timers, (timer.due_mono, next(self._serial), timer))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn; safe from any thread."""
        self._soon.append(callback)
        # The loop's own thread does not wait now, and looks before it does.
        if self._thread != threading.get_ident():
            self._wake()

    def at_turn_end(self, hook: Callable[[], None]) -> None:
        """Call `hook` after the callbacks of each turn, before waiting again."""
        self._turn_hooks.append(hook)

    def on_signal(self, signum: int, callback: Callable[[], None]) -> None:
        """Call back, in a turn of the loop, after each arrival of `signum`."""
        self._signals[signum] = callback
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signum, _only_wake)

    def stop(self) -> None:
        """Let `run` return after this turn."""
        self._stopping = True
        self._wake()

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopping:
            self.turn()

    def turn(self, limit_s: float | None = None) -> None:
        """Wait once, for at most `limit_s` seconds, and serve what is ready."""
        self._thread = threading.get_ident()
        for hook in self._turn_hooks:
            hook()
        for fd, mask in self._poll(self._wait_s(limit_s)):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(mask)
        self._run_timers()
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def close(self) -> None:
        """Give back the loop's descriptors and signal wake-up."""
        if self._signals:
            signal.set_wakeup_fd(-1)
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _poll(self, wait_s: float | None) -> Iterable[tuple[int, int]]:
        return self._epoll.poll(-1 if wait_s is None else wait_s, 64)

    def _wait_s(self, limit_s: float | None) -> float | None:
        if self._soon or self._stopping:
            return 0
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return limit_s
        wait_s = max(0.0, self._timers[0][0] - clock.mono())
        return wait_s if limit_s is None else min(wait_s, limit_s)

    def _run_timers(self) -> None:
        now_mono = clock.mono()
        while self._timers and self._timers[0][0] <= now_mono:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            pass  # the pipe is full: the loop is already due to wake

    def _drain_wake(self, _mask: int) -> None:
        # set_wakeup_fd writes the signal's number, _wake writes 0.
        try:
            arrived = set(os.read(self._wake_read, 65536))
        except BlockingIOError:
            return
        for signum in sorted(arrived & self._signals.keys()):
            self._signals[signum]()


class Wake:
    """A turn of the loop by some time, which may change with every turn.

    One that is due sooner than wanted stays: the turn that it brings asks anew. So
    a busy loop does not make and cancel a timer in each turn.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._timer: Timer | None = None

    def by(self, due_mono: float) -> None:
        """Have a turn at this monotonic time, or sooner."""
        timer = self._timer
        if timer is not None and timer.callback is not None:
            if timer.due_mono <= due_mono:
                return
            timer.cancel()
        self._timer = self._loop.call_later(due_mono - clock.mono(), _nothing)


def _nothing() -> None:
    """A timer that only has to bring a turn."""


def _only_wake(_signum: int, _frame: types.FrameType | None) -> None:
    """The handler proper does nothing: the wake-up descriptor carries the number."""


def nonblocking(sock: socket.socket) -> socket.socket:
    """The same socket, set not to block."""
    sock.setblocking(False)
    return sock
