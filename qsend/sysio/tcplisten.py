"""TCP sockets that listen, opened while it is still allowed, or lent to us.

Source: tcp(7), ip(7), ipv6(7).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from itertools import cycle, islice

from qsend.core.errors import Fatal
from qsend.formats.listeners import Listener
from qsend.sysio.supervisor import LentSockets

BACKLOG = 128
"""Clients that may wait to be taken: a burst of one second, far above what polls."""


def listen_on(
    listeners: Iterable[Listener],
    *,
    sharing: int = 1,
    lent: LentSockets | None = None,
) -> tuple[tuple[socket.socket, ...], ...]:
    """For each listener, in order, `sharing` sockets that share its port.

    The kernel deals the clients out among them (SO_REUSEPORT). Where a service
    manager has lent fewer, they are the same ones again: who is first takes a client.

    Raises: Fatal, naming the one that cannot be had; then none is open.
    """
    opened: list[socket.socket] = []
    shared: list[tuple[socket.socket, ...]] = []
    try:
        for listener in listeners:
            if lent is not None and (ours := lent.take_tcp(listener)):
                opened.extend(ours)
                shared.append(tuple(islice(cycle(ours), sharing)))
                continue
            if sharing > 1:
                # Others of our uid could share it, too: another tree must not.
                _bound(listener, is_shared=False).close()
            first = len(opened)
            opened.extend(
                _bound(listener, is_shared=sharing > 1) for _ in range(sharing)
            )
            shared.append(tuple(opened[first:]))
        for sock in opened:
            sock.listen(BACKLOG)
    except OSError as exc:
        for sock in opened:
            sock.close()
        text = f"cannot start: unable to listen on {listener}: {exc.strerror}"
        raise Fatal(text) from exc
    return tuple(shared)


def _bound(listener: Listener, *, is_shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # [::]:110 and 0.0.0.0:110 may stand side by side.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((listener.address, listener.port))
    except BaseException:
        sock.close()
        raise
    return sock
