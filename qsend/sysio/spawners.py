"""Who delivers for send: lspawn, the remote processes, classic spawners in their place.

They come and go; the manager is told how many attempts each channel takes now.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from qsend.core.manager import Manager
from qsend.core.model import Channel
from qsend.sysio.classiclines import ClassicSpawnLine
from qsend.sysio.loop import Loop
from qsend.sysio.spawnlines import (
    CHECK_S,
    LocalLine,
    OnReport,
    PathLine,
    RemoteLines,
    SpawnLine,
)
from qsend.sysio.wire import Wire

CLASSIC = ("classic-lspawn", "classic-rspawn")
"""The roles of classic spawners."""
MISSING_CHECKS = 2
"""A line that was lost has a new one long before this check of start's children."""


class Spawners:
    """The lines to all who deliver."""

    def __init__(
        self,
        loop: Loop,
        manager: Manager,
        on_report: OnReport,
        on_lost: Callable[[str, str], None],
        ask_isolated: Callable[[], None],
    ) -> None:
        """`on_lost(name, reason)` comes after the line is gone and its deliveries
        were reported; `ask_isolated` has a remote process of its own started for a
        suspect.
        """
        self.local = LocalLine()
        self.remote = RemoteLines(ask_isolated)
        self._loop = loop
        self._manager = manager
        self._on_report = on_report
        self._on_lost = on_lost
        self._lspawn: SpawnLine | None = None
        # Lost, and not yet replaced: at how many checks.
        self._missing: dict[str, int] = {}

    def attach(self, name: str, sock: socket.socket) -> None:
        """Use a spawner, new or in the place of one that was lost."""
        if name in CLASSIC:
            self.attach_classic(name, Wire.of_socket(sock))
            return
        self._missing.pop(name, None)
        line = SpawnLine(
            self._loop,
            sock,
            name,
            self._on_report,
            lambda _name, reason: self._lost(line, reason),
            self._note_slots,
        )
        if name == "lspawn":
            self._lspawn = line
            self.local.attach(line)
        else:
            self.remote.attach(line)

    def attach_classic(self, name: str, wire: Wire) -> None:
        """Use a classic spawner."""
        line = ClassicSpawnLine(
            self._loop,
            wire,
            name,
            self._on_report,
            lambda _name, reason: self._lost(line, reason),
            self._note_slots,
        )
        if name == CLASSIC[0]:
            self.local.attach(line)
        else:
            self.remote.classic = line

    def limits(self) -> tuple[int, int]:
        """Attempts at once, local and remote, as the status line names them.

        What the controls say, unless a classic spawner takes no more than so many
        (qmail-send.c spawn_init).
        """
        local = self._manager.settings.limits[Channel.LOCAL]
        remote = self._manager.settings.limits[Channel.REMOTE]
        if (classic := self.remote.classic) is not None and classic.slots:
            remote = min(remote, classic.slots)
        if self._lspawn is None and self.local.slots:
            local = min(local, self.local.slots)
        return local, remote

    def check_silence(self, on_silent: Callable[[str], None]) -> None:
        """Every CHECK_S: name those that hold deliveries and do not answer.

        And those whose line was lost and that were not replaced: such a one may
        still be there, and has only closed the line.
        """
        for line in (*self.remote, self._lspawn):
            if line is not None and line.is_silent():
                on_silent(line.name)
        for name in list(self._missing):
            self._missing[name] += 1
            if self._missing[name] == MISSING_CHECKS:
                on_silent(name)
        self._loop.call_later(CHECK_S, lambda: self.check_silence(on_silent))

    def _lost(self, line: PathLine, reason: str) -> None:
        """A line has ended; the one in its place, which may be there already, stays."""
        is_current = self.local.detach(line) or self.remote.detach(line)
        if self._lspawn is line:
            self._lspawn = None
        if is_current and line.name not in (*CLASSIC, "isolated"):
            self._missing[line.name] = 0
        self._note_slots()
        self._on_lost(line.name, reason)

    def _note_slots(self) -> None:
        self._manager.set_capacity(Channel.LOCAL, self.local.slots)
        self._manager.set_capacity(Channel.REMOTE, self.remote.slots)
