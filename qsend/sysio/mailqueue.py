"""Injecting mail from our own programs, and taking over a detached enqueue.

Source: qmail.c ("qmail_open" family); qmail-queue(8); docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence

from qsend.core.errors import (
    LocalProtocolError,
    PermFail,
    RemoteProtocolError,
    TempFail,
)
from qsend.core.model import Letter
from qsend.formats.frames import PACKET_MAX, frame, split
from qsend.formats.injection import CHUNK_MAX, HANDOVER
from qsend.formats.queueexit import explain
from qsend.formats.todo import render_wire
from qsend.sysio.home import is_null_client
from qsend.sysio.queueclient import (
    CONNECT_S,
    QueueClient,
    QueueStopped,
    connect,
    socket_path,
)
from qsend.sysio.queueprogram import QueueProgram

_PROBE_S = 1.0
"""A listener whose backlog stays full for so long is there all the same."""
_HANDOVER_S = 10.0
"""enqueue answers at once; silence means that it is not one of ours."""


def inject(
    home: str,
    chunks: Iterable[bytes],
    sender: bytes,
    recips: Sequence[bytes],
    environ: Mapping[str, str],
    *,
    connect_s: float = CONNECT_S,
) -> int:
    """Queue one message; the answer is its qp number.

    $QMAILQUEUE in `environ` names a program to be run instead (started in
    `home`, with `environ`; qp is its pid). Otherwise the enqueue process of
    `home` is asked. A bin/qmail-queue that is a link to qmail-qmqpc is run the same
    way; if nobody listens, so is a setuid one, which is qmail's own and not ours.
    Else root and the queue's owner write the queue themselves; anybody else waits up
    to `connect_s` seconds for enqueue.

    Args:
        chunks: the message in pieces of any size; its exceptions pass through
            and nothing is queued.
        sender, recips: without NUL; at most ADDRESS_MAX bytes each.
    Raises: TempFail or PermFail with the text of qmail-queue(8), ending in its
        status code, as "... (#4.3.0)".
    """
    try:
        envelope = render_wire(sender, recips)
    except LocalProtocolError as exc:
        raise PermFail("an envelope address holds a NUL byte (#5.1.3)") from exc
    try:
        with open_queue(home, environ, connect_s=connect_s) as queue:
            for chunk in chunks:
                queue.message(chunk)
            for at in range(0, len(envelope), CHUNK_MAX):
                queue.envelope(envelope[at : at + CHUNK_MAX])
            return queue.commit()
    except QueueStopped as exc:
        letter, text = explain(exc.code, exc.custom)
    if letter is Letter.FAILURE:
        raise PermFail(text)
    raise TempFail(text or "qq temporary problem (#4.3.0)")


def open_queue(
    home: str, environ: Mapping[str, str], *, connect_s: float = CONNECT_S
) -> QueueClient | QueueProgram:
    """Where `inject` puts a message, for those who have it in pieces.

    Raises: TempFail when no process can be made.
    """
    program = environ.get("QMAILQUEUE") or _classic_program(home)
    if program:
        return QueueProgram(program, home, environ)
    return QueueClient(home, connect_s)


def _classic_program(home: str) -> str | None:
    """A bin/qmail-queue that is not ours and to be run, or None.

    A link to qmail-qmqpc hands all mail on: there is no queue. A classic qmail-send
    has no enqueue process, and delivers by our qmail-local or has mail from our
    qmail-inject only if these use what it came with.
    """
    path = f"{home}/bin/qmail-queue"
    if is_null_client(home):
        return path
    try:
        is_ours = not os.stat(path).st_mode & stat.S_ISUID
    except OSError:
        return None
    return None if is_ours or _is_served(home) else path


def _is_served(home: str) -> bool:
    try:
        connect(socket_path(home), _PROBE_S).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:
        pass  # its client says what is wrong
    return True


def take_over(path: str) -> socket.socket | None:
    """The listening socket of a detached enqueue at `path`; None without one.

    The old enqueue ends when its connections are done; nobody listens but the
    socket, whose backlog is kept, so no client notices.
    Raises: Nothing: a peer that does not hand over counts as none.
    """
    try:
        with connect(path, _HANDOVER_S) as sock:
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
