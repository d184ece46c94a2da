"""pop3d: the network side of POP3, one event loop.

uid qmaild, gid nofiles, no other group. Descriptors at entry: 0 to 2, "start",
"login", and the listening sockets "pop3listen0" ... in the order of
control/pop3listen. It keeps TLS, asks login who a client is, and carries bytes
between a client and the process that is its mailbox; it opens no connection,
and no file but control/tcp.pop3.cdb. start gone: all sessions end, and what was not
QUIT has changed nothing.
Exit codes: 0 when start ended the line, 111 on anything unexpected.
Source: docs/ARCHITECTURE.md; qmail-popup(8), RFC 1939.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping

from qsend.core import logline
from qsend.core.access import Client
from qsend.core.errors import (
    ConfigError,
    OutOfDescriptors,
    RemoteProtocolError,
    TempFail,
)
from qsend.core.lookups import Login
from qsend.core.mx import canonical
from qsend.formats import frames, loginwire, lookupwire
from qsend.formats.control import parse_controls
from qsend.formats.loginwire import LoginOutcome
from qsend.formats.popcontrols import LISTEN, PopSettings, parse_pop
from qsend.sysio import aioprocess
from qsend.sysio.accessfile import AccessFile
from qsend.sysio.admission import Admission
from qsend.sysio.aiolistener import AioListener
from qsend.sysio.aioloop import AioLoop
from qsend.sysio.boot import Boot
from qsend.sysio.endpoint import Descriptors, Endpoint
from qsend.sysio.parent import Parent
from qsend.sysio.popgate import PopClient
from qsend.sysio.tls import server_context

TITLE = "qmail-pop3d: qsend"
_FDS_SPARE = 64
"""Descriptors for the wires, listeners and the loop; a session has two more."""


class Pop3d:
    """The wiring of the process."""

    def __init__(
        self, boot: Boot, loop: asyncio.AbstractEventLoop, access: AccessFile
    ) -> None:
        # A connection may break while it is set up.
        self._crash = aioprocess.Crash(loop, harmless=(OSError,))
        self.me = boot.controls.me
        self.timeout_s = 0.0
        self.allows_plain = False
        self.context: ssl.SSLContext | None = None
        self._loop = loop
        self._poller = AioLoop(loop)
        self._access = access
        self._settings = PopSettings()
        self._admission: Admission[PopClient] = Admission(1, 1)
        self._certificate = b""
        self._configure(parse_pop(boot.files))
        self._asked: dict[int, PopClient] = {}
        self._numbers: dict[PopClient, int] = {}
        self._next_number = 0
        self._listeners: list[AioListener] = []
        self._login = self._meet(boot.socks["login"])
        self._parent = Parent(
            self._poller,
            boot.socks["start"],
            on_close=loop.stop,
            on_controls=self._take_controls,
            on_peer=self._take_peer,
        )

    def listen(self, boot: Boot) -> None:
        """Take clients, and say READY to start."""
        for number, listener in enumerate(self._settings.listeners):
            sock = boot.socks[f"{LISTEN}{number}"]
            is_tls = listener.is_tls

            def client(is_tls: bool = is_tls) -> PopClient:
                return PopClient(self._loop, self, is_tls=is_tls)

            self._listeners.append(AioListener(self._loop, sock, client))
        self._parent.ready()

    def close(self) -> None:
        """Drop all clients. Raises: what made the loop stop, if it was a surprise."""
        for listener in self._listeners:
            listener.close()
        for client in self._admission.guests:
            client.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        if self._crash.failure is not None:
            raise self._crash.failure

    # Desk: what clients need

    def lets_in(self, client: PopClient) -> bool:
        """Whether the access rules do; no names are looked up for POP3."""
        try:
            address = canonical(client.address.partition("%")[0])
            return self._access.judge(Client(address=address)).is_allowed
        except (TempFail, ValueError) as exc:
            os.write(2, logline.warning(f"qmail-pop3d: {client.address}: {exc}"))
            return False

    def enter(self, client: PopClient) -> bool:
        """Whether there is room for one more, in all and from its network."""
        return self._admission.enter(client)

    def leave(self, client: PopClient) -> None:
        """The client has gone."""
        self._admission.leave(client)
        number = self._numbers.pop(client, None)
        if number is not None:
            del self._asked[number]
            self._login.send(loginwire.render_cancel(number))

    def login(self, client: PopClient, login: Login) -> None:
        """Have a login judged."""
        if self._login.closed:
            client.decided(LoginOutcome.TEMPORARY, None)
            return
        self._next_number = number = (self._next_number + 1) % 2**32
        self._asked[number] = client
        self._numbers[client] = number
        self._login.send(lookupwire.render_login(number, login))

    # login

    def _meet(self, sock: socket.socket) -> Endpoint:
        endpoint = Endpoint(
            self._poller,
            sock,
            self._hear_login,
            lambda _reason: self._lose_login(),
            max_fds=frames.FDS_MAX,
        )
        endpoint.send(frames.hello(1))
        return endpoint

    def _hear_login(self, kind: bytes, body: bytes, fds: Descriptors) -> None:
        if kind == frames.HELLO:
            frames.parse_hello(body)
        elif kind == loginwire.OUTCOME:
            number, outcome = loginwire.parse_outcome(body)
            try:
                fd = fds.take() if outcome is LoginOutcome.OPEN else None
            except OutOfDescriptors:
                self._decide(number, LoginOutcome.TEMPORARY, None)
            else:
                self._decide(number, outcome, fd)
        else:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from login")

    def _decide(self, number: int, outcome: LoginOutcome, fd: int | None) -> None:
        client = self._asked.pop(number, None)
        if client is not None:
            del self._numbers[client]
            client.decided(outcome, fd)
        elif fd is not None:
            os.close(fd)  # its client left while the answer was under way

    def _lose_login(self) -> None:
        for number in list(self._asked):
            self._decide(number, LoginOutcome.TEMPORARY, None)

    # start

    def _take_peer(self, role: str, sock: socket.socket) -> None:
        if role != "login":
            sock.close()
            raise RemoteProtocolError(f"unexpected peer {role!r}")
        self._login.close("replaced")
        self._login = self._meet(sock)

    def _take_controls(self, generation: int, files: Mapping[str, bytes]) -> None:
        try:
            controls = parse_controls(files, generation)
            self._configure(parse_pop(files))
        except ConfigError as exc:  # start checked them: a surprise
            os.write(2, logline.warning(f"qmail-pop3d: keeping controls: {exc}"))
            return
        self.me = controls.me
        self._access.forget()

    def _configure(self, settings: PopSettings) -> None:
        """Raises: ConfigError; then nothing has changed."""
        if settings.certificate != self._certificate:
            self.context = (
                server_context(settings.certificate) if settings.certificate else None
            )
            self._certificate = settings.certificate
        self.timeout_s = settings.timeout_s
        self.allows_plain = settings.allows_plain
        self._admission.sessions_max = settings.sessions_max
        self._admission.per_network = settings.sessions_per_address
        self._settings = settings


def main(boot: Boot) -> int:
    """Serve until start closes its line; the exit code.

    Raises: whatever was unexpected, for the one line that fork_child writes.
    """
    settings = parse_pop(boot.files)
    aioprocess.begin(TITLE, 2 * settings.sessions_max + _FDS_SPARE)
    access = AccessFile.of_service(boot.home, "pop3")
    loop = aioprocess.confine(boot.accounts.qmaild, "pop3d", access.directories)
    pop3d = Pop3d(boot, loop, access)
    pop3d.listen(boot)
    loop.run_forever()
    pop3d.close()
    return 0
