"""TLS towards SMTP servers: policies, contexts, and what is remembered of hosts.

Remembered are TLS sessions to resume, and hosts whose handshake failed, which get
their mail in clear for a while where the policy lets them. All of it in memory.
Must not do: open connections (smtpdial), speak SMTP (smtpsession).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace

from qsend.core.mx import Host
from qsend.core.tlspolicy import Demand, Level, demand, is_named
from qsend.core.ttlcache import TtlCache
from qsend.formats.certname import cert_name
from qsend.formats.tlscontrols import TlsControls
from qsend.sysio import clock
from qsend.sysio.tls import TlsBytes
from qsend.sysio.tlscontext import client_context
from qsend.sysio.tlslayer import TlsLayer

PLAIN_S = 600.0
"""How long a host whose handshake failed is not asked for TLS under MAY: long
enough that a queue for it does not connect twice for every message."""
PLAIN_MAX = 5000
SESSIONS_MAX = 1000
"""Sessions kept for resumption; each is a few KiB with the peer's certificate."""

_NAME = re.compile(rb"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom a connection goes to, and what is asked of it."""

    host: Host
    port: int
    demand: Demand


_Key = tuple[str, int, bytes, Level, tuple[bytes, ...]]


class TlsClient:
    """The TLS of one process; make a new one when the control files changed."""

    def __init__(self, controls: TlsControls, ca: Callable[[], bytes]) -> None:
        """Read nothing and make nothing yet.

        Args:
            ca: the certificate authorities where control/tlscafile is absent.
        """
        self.controls = controls
        self.ca = ca
        self._contexts: dict[Level, ssl.SSLContext] = {}
        self._sessions: TtlCache[_Key, ssl.SSLSession] = TtlCache(SESSIONS_MAX)
        self._plain: TtlCache[tuple[str, int], bool] = TtlCache(PLAIN_MAX)

    def demand(self, destination: bytes, *, is_relay: bool) -> Demand:
        """What sessions of a destination must come to; only relays get a login."""
        key = destination.lower()
        login = self.controls.logins.get(key) if is_relay else None
        return demand(key, self.controls.policies, login)

    def begun(self, peer: Peer) -> Peer:
        """The peer as a new session is to take it: in clear, if TLS failed of late."""
        if peer.demand.level is not Level.MAY:
            return peer
        if self._plain.get(_place(peer), clock.mono()) is None:
            return peer
        return replace(peer, demand=replace(peer.demand, level=Level.NONE))

    def note_plain(self, peer: Peer) -> None:
        """The handshake failed."""
        self._plain.put(_place(peer), True, clock.mono(), PLAIN_S)

    def forget(self) -> None:
        """Ask every host for TLS again."""
        self._plain.clear()

    def secure(
        self,
        peer: Peer,
        below: asyncio.Transport,
        above: asyncio.Protocol,
        on_up: Callable[[bytes], None],
        on_failed: Callable[[bytes], None],
    ) -> TlsLayer:
        """Begin TLS on a connection; the layer is the transport from now on.

        Args:
            on_up: gets version, cipher, the peer's name and whether that is sure,
                for reports.
            on_failed: gets a reason. One of both is called, or the connection ends.
        Raises: OSError, of which ssl.SSLError is one, and TlsBroken when TLS cannot
            begin.
        """
        tls = TlsBytes(
            self._context(peer.demand.level),
            is_server=False,
            name=_server_name(peer.host.name),
            session=self._sessions.get(_key(peer), clock.mono()),
        )
        return TlsLayer(
            below,
            above,
            tls,
            on_up=lambda: _judge(peer, tls.object, on_up, on_failed),
            on_failed=lambda reason: on_failed(reason.encode("ascii", "replace")),
            on_data=lambda: self._keep(peer, tls.object),
        )

    def _context(self, level: Level) -> ssl.SSLContext:
        context = self._contexts.get(level)
        if context is None:
            ca = b"" if level is not Level.VERIFY or self.controls.ca else self.ca()
            context = client_context(level, self.controls, ca)
            self._contexts[level] = context
        return context

    def _keep(self, peer: Peer, tls: ssl.SSLObject) -> None:
        session = tls.session
        if session is not None and (session.has_ticket or session.id):
            now_mono = clock.mono()
            self._sessions.put(_key(peer), session, now_mono, session.timeout)


def _judge(
    peer: Peer,
    tls: ssl.SSLObject,
    on_up: Callable[[bytes], None],
    on_failed: Callable[[bytes], None],
) -> None:
    """The handshake is done: look whom it was done with, and describe it."""
    is_verified = peer.demand.level is Level.VERIFY
    name = cert_name(tls.getpeercert(binary_form=True) or b"")
    if is_verified and not is_named(_names(tls), peer.demand.names):
        wanted = b" or ".join(peer.demand.names)
        on_failed(b"certificate of %s, not of %s" % (name, wanted))
        return
    version, (cipher, *_) = tls.version() or "?", tls.cipher() or ("?",)
    words = [version.encode(), cipher.encode(), name]
    words.append(b"verified" if is_verified else b"unverified")
    if tls.session_reused:
        words.append(b"resumed")
    on_up(b" ".join(words))


def _place(peer: Peer) -> tuple[str, int]:
    return (peer.host.address, peer.port)


def _key(peer: Peer) -> _Key:
    host, demand = peer.host, peer.demand
    return (host.address, peer.port, host.name, demand.level, demand.names)


def _server_name(name: bytes) -> str | None:
    """For SNI: a host name; never an address."""
    name = name.removesuffix(b".")
    if not _NAME.fullmatch(name) or name.rpartition(b".")[2].isdigit():
        return None
    return name.decode("ascii").lower()


def _names(tls: ssl.SSLObject) -> list[tuple[str, str]]:
    """The alternative names of a verified certificate."""
    found = (tls.getpeercert() or {}).get("subjectAltName", ())
    return [(str(pair[0]), str(pair[1])) for pair in found if len(pair) == 2]
