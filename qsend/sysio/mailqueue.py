"""Injecting mail from our own programs, and taking over a detached enqueue.

Source: qmail.c ("qmail_open" family); qmail-queue(8); docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import socket
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
from qsend.sysio.queueclient import CONNECT_S, QueueClient, QueueStopped, connect
from qsend.sysio.queueprogram import run_program

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
    `home` is asked, for up to `connect_s` seconds if it is not there; without
    it root and the queue's owner write the queue themselves.

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
    program = environ.get("QMAILQUEUE")
    if program:
        outcome = run_program(program, home, chunks, envelope, environ)
        _check(outcome.code, outcome.custom)
        return outcome.pid
    with QueueClient(home, connect_s) as client:
        try:
            for chunk in chunks:
                client.message(chunk)
            for at in range(0, len(envelope), CHUNK_MAX):
                client.envelope(envelope[at : at + CHUNK_MAX])
            return client.commit()
        except QueueStopped as exc:
            code = exc.code
    _check(code)
    raise TempFail("trouble queueing the message (#4.3.0)")


def _check(code: int, custom: bytes = b"") -> None:
    letter, text = explain(code, custom)
    if letter is Letter.FAILURE:
        raise PermFail(text)
    if letter is Letter.DEFERRAL:
        raise TempFail(text)


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
