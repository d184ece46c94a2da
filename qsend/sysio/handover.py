"""Taking over a detached enqueue: its listening socket goes to a new start.

Source: docs/ARCHITECTURE.md; formats/injection.py HANDOVER.
"""

from __future__ import annotations

import socket

from qsend.core.errors import RemoteProtocolError
from qsend.formats.frames import PACKET_MAX, frame, split
from qsend.formats.injection import HANDOVER
from qsend.sysio.queueclient import connect

_HANDOVER_S = 10.0
"""enqueue answers at once; silence means that it is not one of ours."""


def take_over(path: str) -> socket.socket | None:
    """The listening socket of a detached enqueue at `path`; None without one.

    The old enqueue ends when its connections are done; nobody listens but the
    socket, whose backlog is kept, so no client notices.
    Raises: Nothing: a peer that does not hand over counts as none.
    """
    try:
        with socket.socket(fileno=connect(path, _HANDOVER_S).detach()) as sock:
            sock.settimeout(_HANDOVER_S)
            sock.send(frame(HANDOVER, b""))
            packet, fds, _flags, _address = socket.recv_fds(sock, PACKET_MAX, 1)
    except OSError:
        return None
    if not fds:
        return None
    listen = socket.socket(fileno=fds[0])
    try:
        if next(split(packet), None) == (HANDOVER, b""):
            return listen
    except RemoteProtocolError:
        pass  # not one of ours
    listen.close()
    return None
