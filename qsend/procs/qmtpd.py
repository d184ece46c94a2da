"""qmtpd: takes mail by QMTP and by QMQP, one event loop.

uid qmaild, gid nofiles, no other group. Descriptors at entry: 0 to 2, "start",
"enqueue", "lookup", and listening sockets "qmtplisten0" ..., "qmqplisten0" ... in the
order of those control files. It reads control/tcp.qmtp.cdb, control/tcp.qmqp.cdb and
control/morercpthosts.cdb, and opens nothing else; a message goes to enqueue as it
comes. start gone: all sessions end, and what was not acknowledged is not queued.
Exit codes: 0 when start ended the line, 111 on anything unexpected.
Source: docs/ARCHITECTURE.md; qmail-qmtpd(8), qmail-qmqpd(8).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import ClassVar

from qsend.core import logline
from qsend.core.access import Access, Client
from qsend.core.errors import ConfigError
from qsend.core.relay import Refused, RelayRules, Taken, Unlisted
from qsend.core.smtpdsteps import databytes_of
from qsend.formats.accesscontrols import parse_access
from qsend.formats.control import parse_controls
from qsend.formats.qmtp import Dialogue, QmqpDialogue, QmtpDialogue
from qsend.formats.qmtpcontrols import (
    QMQP_LISTEN,
    QMTP_LISTEN,
    QmtpdSettings,
    parse_qmtpd,
)
from qsend.sysio import aioprocess
from qsend.sysio.admission import Admission
from qsend.sysio.aiolistener import AioListener
from qsend.sysio.boot import Boot
from qsend.sysio.gatekeeper import Gatekeeper
from qsend.sysio.qmtpclient import READ_MAX, QmtpClient
from qsend.sysio.runnerline import Intake
from qsend.sysio.siblings import Siblings

TITLE = "qmail-qmtpd: qsend"
_FDS_SPARE = 256
"""Descriptors for wires, listeners, databases and the loop."""


class Qmtpd:
    """The wiring of the process."""

    def __init__(
        self,
        boot: Boot,
        loop: asyncio.AbstractEventLoop,
        qmtp: Gatekeeper,
        qmqp: Gatekeeper,
    ) -> None:
        # A connection may break while it is set up.
        self._crash = aioprocess.Crash(loop, harmless=(OSError,))
        self.me = b""
        self.admission: Admission[QmtpClient] = Admission(1, 1)
        self.settings = QmtpdSettings()
        self._loop = loop
        self._gates = (qmtp, qmqp)
        self.qmtp = _QmtpDesk(self, qmtp)
        self.qmqp = _QmqpDesk(self, qmqp)
        self._configure(boot.files, boot.controls.generation)
        self._listeners: list[AioListener] = []
        self.siblings = Siblings(loop, boot, self._take_controls)

    def listen(self, boot: Boot) -> None:
        """Take clients, and say READY to start."""
        for name, sock in boot.socks.items():
            if name.startswith(QMTP_LISTEN):
                self._serve(self.qmtp, sock)
            elif name.startswith(QMQP_LISTEN):
                self._serve(self.qmqp, sock)
        self.siblings.ready()

    def _serve(self, desk: _Desk, sock: socket.socket) -> None:
        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await QmtpClient(desk, reader, writer).serve()

        def make() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(limit=READ_MAX, loop=self._loop)
            return asyncio.StreamReaderProtocol(reader, serve, loop=self._loop)

        self._listeners.append(AioListener(self._loop, sock, make))

    def close(self) -> None:
        """Drop all clients, and raise what ended the loop if that was a surprise."""
        for listener in self._listeners:
            listener.close()
        # gather takes the loop of what it is given; of nothing it knows none.
        if tasks := asyncio.all_tasks(self._loop):
            for task in tasks:
                task.cancel()
            ended = asyncio.gather(*tasks, return_exceptions=True)
            self._loop.run_until_complete(ended)
        if self._crash.failure is not None:
            raise self._crash.failure

    # start

    def _take_controls(self, generation: int, files: Mapping[str, bytes]) -> None:
        try:
            self._configure(files, generation)
        except ConfigError as exc:  # start checked them: a surprise
            os.write(2, logline.warning(f"qmail-qmtpd: keeping controls: {exc}"))
            return
        for gate in self._gates:
            gate.forget()

    def _configure(self, files: Mapping[str, bytes], generation: int) -> None:
        """Raises: ConfigError; then nothing has changed."""
        controls = parse_controls(files, generation)
        settings = parse_qmtpd(files)
        relay = parse_access(files, controls).relay
        self.me = controls.me or b"unknown"
        self.settings = settings
        self.admission.sessions_max = settings.sessions_max
        self.admission.per_network = settings.sessions_per_address
        self.qmtp.configure(relay, has_database=controls.has_sql)


class _Desk:
    """What clients of both services need of the process; SERVICE is their name."""

    SERVICE: ClassVar[str]

    def __init__(self, process: Qmtpd, gate: Gatekeeper) -> None:
        self._process = process
        self._gate = gate

    @property
    def me(self) -> bytes:
        """Who we are to a client."""
        return self._process.me

    @property
    def timeout_s(self) -> float:
        """How long a client may be silent."""
        return self._process.settings.timeout_s

    def intake(self, client: Client, access: Access) -> Intake:
        """Where the messages of a client go."""
        return self._process.siblings.intake(self.SERVICE, client, access)

    def lets_in(self, client: Client) -> Access | None:
        """Why it may come in; None when it may not, or nobody knows."""
        access = self._gate.lets_in(client)
        return access if access is not None and access.is_allowed else None

    def enter(self, client: QmtpClient) -> bool:
        """Whether there is room for one more, in all and from its network."""
        admission = self._process.admission
        if admission.enter(client):
            return True
        full = "concurrencyqmtpd" if admission.is_full() else "concurrencyqmtpdperip"
        self.note(f"control/{full}: clients are sent away")
        return False

    def leave(self, client: QmtpClient) -> None:
        """The client has gone."""
        self._process.admission.leave(client)

    def note(self, text: str) -> None:
        """Tell the operator, the same thing not too often."""
        self._gate.note(text)

    def dialogue(self, access: Access) -> Dialogue:
        """What to speak with a client that came in so."""
        raise NotImplementedError

    async def settle(self, unlisted: Unlisted) -> Taken | Refused:
        """Whether a recipient is taken."""
        return await self._gate.settle(unlisted, self._process.siblings.lookup)


class _QmtpDesk(_Desk):
    """QMTP takes mail as SMTP does."""

    SERVICE = "qmtp"

    def __init__(self, process: Qmtpd, gate: Gatekeeper) -> None:
        super().__init__(process, gate)
        self._relay: RelayRules | None = None

    def configure(self, relay: RelayRules, *, has_database: bool) -> None:
        """Judge by these from now on."""
        self._relay = relay
        self._gate.has_database = has_database
        if self._process.settings.qmtp:
            self._gate.warn(relay)

    def dialogue(self, access: Access) -> Dialogue:
        assert self._relay is not None
        variables = access.variables
        databytes = databytes_of(variables)
        return QmtpDialogue(
            self._relay,
            variables.get(b"RELAYCLIENT"),
            self._process.settings.databytes if databytes is None else databytes,
        )


class _QmqpDesk(_Desk):
    """QMQP takes all mail of those whom a rule allows, and of nobody else."""

    SERVICE = "qmqp"

    def lets_in(self, client: Client) -> Access | None:
        access = super().lets_in(client)
        if access is None or access.is_explicit:
            return access
        self.note(f"{client.address} is refused: no rule allows it")
        return None

    def dialogue(self, access: Access) -> Dialogue:
        return QmqpDialogue()


def main(boot: Boot) -> int:
    """Serve until start closes its line; the exit code.

    Raises: whatever was unexpected, for the one line that fork_child writes.
    """
    settings = parse_qmtpd(boot.files)
    aioprocess.begin(TITLE, settings.sessions_max + _FDS_SPARE)
    gates = (
        Gatekeeper(boot.home, _QmtpDesk.SERVICE),
        Gatekeeper(boot.home, _QmqpDesk.SERVICE),
    )
    directories = {path: None for gate in gates for path in gate.directories}
    loop = aioprocess.confine(boot.accounts.qmaild, "qmtpd", directories)
    qmtpd = Qmtpd(boot, loop, *gates)
    qmtpd.listen(boot)
    loop.run_forever()
    qmtpd.close()
    return 0
