"""TCP sockets that listen, opened while it is still allowed.

Source: tcp(7), ip(7), ipv6(7).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from qsend.core.errors import Fatal
from qsend.formats.popcontrols import PopListener

BACKLOG = 128
"""Clients that may wait to be taken: a burst of one second, far above what polls."""


def listen_on(listeners: Iterable[PopListener]) -> tuple[socket.socket, ...]:
    """One listening socket for each, in order.

    Raises: Fatal, naming the one that cannot be had; then none is open.
    """
    opened: list[socket.socket] = []
    try:
        for listener in listeners:
            opened.append(_listen(listener))
    except OSError as exc:
        for sock in opened:
            sock.close()
        text = f"cannot start: unable to listen on {listener}: {exc.strerror}"
        raise Fatal(text) from exc
    return tuple(opened)


def _listen(listener: PopListener) -> socket.socket:
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::]:110 and 0.0.0.0:110 may stand side by side.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((listener.address, listener.port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
