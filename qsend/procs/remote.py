"""remote: SMTP deliveries, one event loop, many sessions.

Uid qmailr, gid nofiles, no other group. Descriptors at entry: 0 to 2, "send",
"start". It reads messages only through descriptors that send passes, writes no
file, and opens no path after the drop. send gone: what has sent its final dot is
finished, the rest is aborted, and a new send is waited for. start gone: exit.
Exit codes: 0 when start ended the line, 111 on anything unexpected.
Source: docs/ARCHITECTURE.md; qmail-rspawn.c, qmail-remote.c.
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401 - the socket module imports it when first used
import os
import resource
import socket
import ssl
from collections.abc import Callable, Container, Mapping

from qsend.core import logline
from qsend.core.errors import ConfigError, OutOfDescriptors, RemoteProtocolError
from qsend.core.model import Letter
from qsend.core.tcpto import SilentHosts
from qsend.formats import frames
from qsend.formats.control import Controls, parse_controls
from qsend.formats.delivery import (
    FORGET,
    TRANSACTION,
    Report,
    Transaction,
    parse_transaction,
    render_report,
)
from qsend.formats.tlscontrols import parse_tls
from qsend.sysio import aioprocess, clock
from qsend.sysio.aioloop import AioLoop
from qsend.sysio.boot import Boot
from qsend.sysio.dns import Dns
from qsend.sysio.endpoint import Descriptors, Endpoint
from qsend.sysio.localaddrs import OwnAddresses
from qsend.sysio.parent import Parent
from qsend.sysio.smtpcourier import Courier
from qsend.sysio.smtppool import IDLE_MAX
from qsend.sysio.smtpsession import Settings
from qsend.sysio.tlsclient import TlsClient
from qsend.sysio.tlscontext import system_ca

TITLE = "qmail-remote: qsend"
SLOTS_MAX = 4096
"""Deliveries at a time; a session costs about 50 KiB with its buffers."""
FDS_SPARE = 64
"""Descriptors for the wires, DNS sockets and the loop; the eighth part of the rest, at
most, is for idle sessions, and what is left in pairs: a delivery has a connection and
may keep its message open."""
_IDLE_SHARE = 8
_NO_FILES = b"Too many files are open for deliveries. (#4.3.0)\n"


class Remote:
    """The wiring of one remote process."""

    def __init__(
        self,
        boot: Boot,
        loop: asyncio.AbstractEventLoop,
        dns: Dns,
        own: Callable[[], Container[str]],
        tls: TlsClient,
    ) -> None:
        """Greet send and say READY to start."""
        self._crash = aioprocess.Crash(loop)
        self._loop = loop
        self._poller = AioLoop(loop)
        self._dns = dns
        self._health = _Health()
        self._tls = tls
        self._slots, idle_max = _room()
        self._courier = Courier(
            loop, dns, self._health, _settings(boot.controls, tls), own, idle_max
        )
        self._serves_suspects = boot.role == "isolated"
        self._send = self._meet(boot.socks["send"])
        self._parent = Parent(
            self._poller,
            boot.socks["start"],
            on_close=loop.stop,
            on_controls=self._take_controls,
            on_peer=self._take_peer,
        )
        self._parent.ready()

    def close(self) -> None:
        """Drop all sessions and give the resolver's sockets back.

        Raises: what made the loop stop, if it was a surprise.
        """
        self._courier.close()
        self._loop.run_until_complete(self._dns.close())
        if self._crash.failure is not None:
            raise self._crash.failure

    def _meet(self, sock: socket.socket) -> Endpoint:
        endpoint: Endpoint

        def report(report: Report) -> None:
            endpoint.send(render_report(report))

        def take(kind: bytes, body: bytes, fds: Descriptors) -> None:
            if kind == TRANSACTION:
                self._deliver(parse_transaction(body), fds, report)
            elif kind == FORGET:
                self._health.forget()
                self._tls.forget()
            elif kind == frames.HELLO:
                frames.parse_hello(body)
            else:
                raise RemoteProtocolError(f"unexpected frame {kind!r} from send")

        endpoint = Endpoint(
            self._poller, sock, take, self._lose_send, max_fds=frames.FDS_MAX
        )
        endpoint.send(frames.hello(self._slots))
        endpoint.flush()
        return endpoint

    def _deliver(
        self,
        transaction: Transaction,
        fds: Descriptors,
        report: Callable[[Report], None],
    ) -> None:
        try:
            mess_fd = fds.take()
        except OutOfDescriptors:
            for delid, _recip in transaction.recips:
                report(Report(delid=delid, letter=Letter.DEFERRAL, text=_NO_FILES))
            return
        self._courier.deliver(transaction, mess_fd, report)

    def _lose_send(self, _reason: str) -> None:
        self._courier.abort()
        if self._serves_suspects:
            self._loop.stop()  # it was made for this send's suspects

    def _take_peer(self, role: str, sock: socket.socket) -> None:
        if role != "send":
            sock.close()
            raise RemoteProtocolError(f"unexpected peer {role!r}")
        self._send.close("replaced")
        self._send = self._meet(sock)

    def _take_controls(self, generation: int, files: Mapping[str, bytes]) -> None:
        try:
            controls = parse_controls(files, generation)
            tls_controls = parse_tls(files)
            self._dns.set_resolvers(controls.resolvers)
        except (ConfigError, ValueError) as exc:  # start checked them: a surprise
            os.write(2, logline.warning(f"qmail-remote: keeping controls: {exc}"))
            return
        if tls_controls != self._tls.controls:
            self._tls = TlsClient(tls_controls, self._tls.ca)
        self._courier.use(_settings(controls, self._tls))


class _Health:
    """The silent hosts of this process, on the wall clock."""

    def __init__(self) -> None:
        self._hosts = SilentHosts(os.getpid())

    def is_skipped(self, address: str) -> bool:
        return self._hosts.is_skipped(address, clock.now())

    def note_timeout(self, address: str) -> None:
        self._hosts.note_timeout(address, clock.now())

    def note_answer(self, address: str) -> None:
        self._hosts.note_answer(address)

    def forget(self) -> None:
        self._hosts = SilentHosts(os.getpid())


def _settings(controls: Controls, tls: TlsClient) -> Settings:
    return Settings(
        helo=controls.helohost,
        timeout_connect=controls.timeoutconnect,
        timeout_remote=controls.timeoutremote,
        tls=tls,
    )


def _room() -> tuple[int, int]:
    """How many deliveries, and how many idle sessions, descriptors suffice for."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = soft - FDS_SPARE
    idle_max = max(1, min(IDLE_MAX, room // _IDLE_SHARE))
    return max(1, min(SLOTS_MAX, (room - idle_max) // 2)), idle_max


def main(boot: Boot) -> int:
    """Serve until start closes its line; the exit code.

    Raises: whatever was unexpected, for the one line that fork_child writes.
    """
    aioprocess.begin(TITLE, 2 * SLOTS_MAX + IDLE_MAX + FDS_SPARE)
    own = OwnAddresses()
    dns = Dns(boot.controls.resolvers, ipv6=own.has_ipv6)
    ca = system_ca()
    tls = TlsClient(parse_tls(boot.files), lambda: ca)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # makes OpenSSL read its own files
    loop = aioprocess.confine(boot.accounts.qmailr, "remote")
    remote = Remote(boot, loop, dns, own, tls)
    loop.run_forever()
    remote.close()
    return 0
