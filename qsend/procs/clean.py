"""clean: the process that removes messages, as qmailq and nothing else.

Uid qmailq, gid qmail. At entry: descriptors 0 to 2, sockets "start" and "send".
Writes only in mess, intd, todo, pid and aside of the queue. Exit codes: 0 when
start or send has closed its line and what had been received is done; 111 when
the queue cannot be opened.
send and clean live and end as a pair: a new send begins with a new clean after
the old one has been reaped, so no request of an old send is ever worked later.
Source: qmail-clean.c; docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

import setproctitle

from qsend.core.clocksteps import ClockSteps
from qsend.core.errors import Fatal
from qsend.formats.cleanwire import Request, parse_request, render_answer
from qsend.formats.control import Controls, parse_controls
from qsend.sysio import clock, sandbox
from qsend.sysio.boot import Boot
from qsend.sysio.cleaner import OSSIFIED_S, Cleaner
from qsend.sysio.endpoint import Descriptors, Endpoint
from qsend.sysio.loop import Loop
from qsend.sysio.parent import Parent
from qsend.sysio.privilege import drop, harden
from qsend.sysio.spread import Threads

SWEEP_PID_S = 3600
"""How often pid/ is looked through; what is removed there is 36 hours old."""


class _Clean:
    """The wiring: requests of a turn are gathered and worked together."""

    def __init__(self, boot: Boot, cleaner: Cleaner) -> None:
        self._loop = Loop()
        self._cleaner = cleaner
        self._batch: list[Request] = []
        self._steps = ClockSteps(clock.now(), clock.mono(), OSSIFIED_S)
        self._send = Endpoint(self._loop, boot.socks["send"], self._frame, self._closed)
        self._parent = Parent(
            self._loop,
            boot.socks["start"],
            on_close=self._loop.stop,
            on_controls=self._controls,
        )

    def run(self) -> int:
        """Serve until a line closes, then finish what was received."""
        self._loop.at_turn_end(self._work)
        self._sweep()
        self._parent.ready()
        self._loop.run()
        self._work()
        self._send.flush()
        self._loop.close()
        return 0

    def _frame(self, kind: bytes, body: bytes, _fds: Descriptors) -> None:
        self._batch.append(parse_request(kind, body))

    def _work(self) -> None:
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        for request, error in zip(batch, self._cleaner.work(batch), strict=True):
            self._send.send(render_answer(request, error))

    def _sweep(self) -> None:
        try:
            now, now_mono = clock.now(), clock.mono()
            self._steps.look(now, now_mono)
            self._cleaner.sweep_pid(now - self._steps.ahead_s)
        except OSError as exc:
            # The next sweep tries again; nothing else depends on it.
            _warn(f"unable to look through pid/: {exc.strerror}")
        self._loop.call_later(SWEEP_PID_S, self._sweep)

    def _controls(self, _generation: int, files: Mapping[str, bytes]) -> None:
        self._cleaner.level = _controls_of(files).durability

    def _closed(self, _reason: str) -> None:
        self._loop.stop()


def _controls_of(files: Mapping[str, bytes]) -> Controls:
    # start gives clean only what clean may know; `me` is not needed here.
    return parse_controls({"me": b"-", **files})


def _warn(text: str) -> None:
    os.write(2, f"warning: clean: {text}\n".encode())


def main(boot: Boot) -> int:
    """Serve send until it or start goes away."""
    # A terminal's or systemd's signal reaches the whole group: start and send
    # decide what it means, and clean ends when they are done with it.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    setproctitle.setproctitle("qmail-clean: qsend")
    drop(boot.accounts.qmailq)
    harden()
    sandbox.apply("clean", boot.home)
    threads = Threads()
    try:
        cleaner = Cleaner(boot.queue, boot.controls.durability, spread=threads)
    except OSError as exc:
        raise Fatal(f"unable to open {boot.queue}: {exc.strerror}") from exc
    try:
        return _Clean(boot, cleaner).run()
    finally:
        threads.close()
        cleaner.close()
