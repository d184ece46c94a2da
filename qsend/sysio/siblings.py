"""A listener's lines to its siblings, and to start: which socket is whose.

Source: docs/ARCHITECTURE.md; formats/startwire.py.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

from qsend.core.access import QUEUE_VARIABLE, Access, Client
from qsend.core.errors import RemoteProtocolError
from qsend.core.family import RUNNER
from qsend.formats import startwire
from qsend.sysio.aioloop import AioLoop
from qsend.sysio.asklines import LookupLine
from qsend.sysio.boot import Boot
from qsend.sysio.intakeline import IntakeLine
from qsend.sysio.parent import Parent
from qsend.sysio.runnerline import Intake, RunnerLine

Attach = Callable[[socket.socket], None]


class Siblings:
    """What every listener for mail has lines to; belongs to an asyncio loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        boot: Boot,
        on_controls: Callable[[int, Mapping[str, bytes]], None],
        others: Callable[[AioLoop], Mapping[str, Attach]] = lambda _poller: {},
    ) -> None:
        """Take the sockets that `boot` has; start gone ends the loop.

        Args:
            others: what this listener alone has lines to.
        """
        poller = AioLoop(loop)
        self.lookup = LookupLine(poller)
        self._enqueue = IntakeLine(poller)
        self._runner = RunnerLine(poller, self._need_runner)
        self._attach: dict[str, Attach] = {
            "enqueue": self._enqueue.attach,
            "lookup": self.lookup.attach,
            RUNNER: self._runner.attach,
            **others(poller),
        }
        for role in self._attach.keys() & boot.socks.keys():
            self._take(role, boot.socks[role])
        self._parent = Parent(
            poller,
            boot.socks["start"],
            on_close=loop.stop,
            on_controls=on_controls,
            on_peer=self._take,
        )

    def ready(self) -> None:
        """Say to start that this process serves now."""
        self._parent.ready()

    def intake(
        self, service: str, client: Client, access: Access, login: bytes | None = None
    ) -> Intake:
        """Where the messages of a client of `service` go, as its access rule says."""
        if QUEUE_VARIABLE not in access.variables:
            return self._enqueue
        return self._runner.intake(service, client, login)

    def _need_runner(self) -> None:
        self._parent.ask(startwire.ASK_RUNNER)

    def _take(self, role: str, sock: socket.socket) -> None:
        attach = self._attach.get(role)
        if attach is None:
            sock.close()
            raise RemoteProtocolError(f"unexpected peer {role!r}")
        attach(sock)
