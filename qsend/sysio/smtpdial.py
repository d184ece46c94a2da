"""From a list of hosts to a session that is ready; and one delivery in all.

Hosts are tried in order until one greets and takes our name; who cannot be
connected, or fails before MAIL, makes way for the next. Where TLS may be used but
cannot be made, the same host is connected once more and gets its mail in clear.
Must not do: ask the DNS, keep sessions.
Source: qmail-remote.c main(); RFC 5321 5.1. Unlike qmail, which gives up at the
first host that accepts the connection, a failed greeting is no verdict.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Protocol

from qsend.core.model import Cause, Letter
from qsend.core.mx import Host
from qsend.core.smtpaddress import is_sendable, unsendable_answer
from qsend.core.smtptable import State
from qsend.core.smtptypes import Answer, Envelope, Outcome
from qsend.core.tlspolicy import Demand, Level
from qsend.sysio.smtpcontent import Content
from qsend.sysio.smtpsession import Session, SessionFailed, Settings, Sweeper
from qsend.sysio.tlsclient import Peer

SESSIONS_MAX = 5
"""Hosts of one attempt that may accept the connection and then fail; RFC 5321
5.1 asks for at least two."""

_NO_CONNECTION = Answer(
    letter=Letter.DEFERRAL,
    text=b"Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n",
    cause=Cause.UNREACHABLE,
)
_NO_SOCKET = Answer(
    letter=Letter.DEFERRAL,
    text=b"System resources temporarily unavailable. (#4.3.0)\n",
)


class Health(Protocol):
    """Which hosts are left alone for a while (tcpto semantics)."""

    def is_skipped(self, address: str) -> bool:
        """Whether not to try this host now."""

    def note_timeout(self, address: str) -> None:
        """Connecting to it timed out."""

    def note_answer(self, address: str) -> None:
        """It accepted, or refused at once."""


async def dial(
    hosts: Sequence[Host],
    port: int,
    demand: Demand,
    settings: Settings,
    health: Health,
    sweeper: Sweeper,
) -> Session:
    """A ready session with the first host that lets one come up.

    Args:
        hosts: in the order to try.
        demand: what is asked of the session.
    Raises: SessionFailed with the report when there is none.
    """
    failure, failures, is_busy = _NO_CONNECTION, 0, False
    for host in hosts:
        if health.is_skipped(host.address):
            continue
        peer = Peer(host=host, port=port, demand=demand)
        sock = await _connect(peer, settings, health)
        if sock is None:
            continue
        try:
            return await _open(sock, peer, settings, health, sweeper)
        except SessionFailed as exc:
            failure, failures = exc.answer, failures + 1
            is_busy |= exc.is_busy
        if failures == SESSIONS_MAX:
            break
    raise SessionFailed(failure, is_busy=is_busy)


async def _open(
    sock: socket.socket,
    peer: Peer,
    settings: Settings,
    health: Health,
    sweeper: Sweeper,
) -> Session:
    """A session over a new connection, or in clear over a second one."""
    tls = settings.tls
    try:
        return await _greet(sock, tls.begun(peer), settings, sweeper)
    except SessionFailed as exc:
        if not exc.is_insecure or peer.demand.level is not Level.MAY:
            raise
        tls.note_plain(peer)
        again = await _connect(peer, settings, health)
        if again is None:
            raise
        return await _greet(again, tls.begun(peer), settings, sweeper)


async def _connect(
    peer: Peer, settings: Settings, health: Health
) -> socket.socket | None:
    """A connected socket, or None. Raises: SessionFailed without descriptors."""
    host = peer.host.address
    sock = _socket(host)
    if sock is None:
        return None
    try:
        async with asyncio.timeout(settings.timeout_connect):
            await _established(sock, (host, peer.port))
    except TimeoutError:  # ours, or the kernel's ETIMEDOUT
        health.note_timeout(host)
    except OSError:
        health.note_answer(host)
    except BaseException:
        sock.close()
        raise
    else:
        health.note_answer(host)
        return sock
    sock.close()
    return None


async def _established(sock: socket.socket, address: tuple[str, int]) -> None:
    """Connect. Raises: OSError.

    uvloop's sock_connect has threads look the address up, though it is one, and
    libuv ends the process where there are none to be had.
    """
    try:
        sock.connect(address)
    except BlockingIOError:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(sock, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error)) from None


def _socket(host: str) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        sock = socket.socket(family, kind)
    except OSError as exc:
        if family == socket.AF_INET6:
            return None  # this machine has no IPv6; the next host may be IPv4
        raise SessionFailed(_NO_SOCKET) from exc
    # Whole commands are written at once: waiting for more would only delay them.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def _greet(
    sock: socket.socket, peer: Peer, settings: Settings, sweeper: Sweeper
) -> Session:
    session = Session(peer, settings, sweeper)
    try:
        await sweeper.loop.create_connection(lambda: session, sock=sock)
        await session.until_ready()
    except asyncio.CancelledError:
        session.abort()
        raise
    except OSError as exc:  # reset before the transport could be made
        sock.close()
        raise SessionFailed(_NO_CONNECTION) from exc
    if session.state is not State.IDLE:  # it took our name and left in one breath
        raise SessionFailed(_NO_CONNECTION)
    return session


def unsendable(sender: bytes, recips: Sequence[bytes]) -> Answer | None:
    """The failure when an address does not fit into SMTP, else None."""
    if not is_sendable(sender):
        return unsendable_answer(is_sender=True)
    if not all(map(is_sendable, recips)):
        return unsendable_answer(is_sender=False)
    return None


async def deliver(
    hosts: Sequence[Host],
    port: int,
    demand: Demand,
    envelope: Envelope,
    content: Content,
    settings: Settings,
    health: Health,
) -> Outcome:
    """Run one transaction with the first host that answers, then QUIT.

    Addresses must have passed `unsendable`. What peers do is in the outcome,
    without recipients when no session came up.
    """
    sweeper = Sweeper(asyncio.get_running_loop())
    try:
        session = await dial(hosts, port, demand, settings, health, sweeper)
    except SessionFailed as exc:
        return Outcome(recips=(), verdict=exc.answer, giving_up=b"")
    closed = asyncio.Event()
    session.on_closed = lambda _session: closed.set()
    outcome = await session.run(envelope, content)
    session.leave_now()
    await closed.wait()
    return outcome
