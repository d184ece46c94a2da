"""Injecting mail from our own programs.

Source: qmail.c ("qmail_open" family); qmail-queue(8); docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import posix

from qsend.core.errors import LocalProtocolError, PermFail, TempFail
from qsend.core.light import TYPE_CHECKING
from qsend.formats.injection import CHUNK_MAX
from qsend.formats.todo import render_wire
from qsend.sysio.home import is_null_client
from qsend.sysio.native import S_ISUID
from qsend.sysio.queueclient import (
    CONNECT_S,
    QueueClient,
    QueueStopped,
    connect,
    socket_path,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qsend.sysio.queueprogram import QueueProgram

_PROBE_S = 1.0
"""A listener whose backlog stays full for so long is there all the same."""


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
        raise _failure(exc) from None


def _failure(stopped: QueueStopped) -> TempFail | PermFail:
    """What its code means to people."""
    # Not at the top: a message that is queued needs none of it.
    from qsend.core.model import Letter  # noqa: PLC0415
    from qsend.formats.queuetexts import explain  # noqa: PLC0415

    letter, text = explain(stopped.code, stopped.custom)
    if letter is Letter.FAILURE:
        return PermFail(text)
    return TempFail(text or "qq temporary problem (#4.3.0)")


def open_queue(
    home: str, environ: Mapping[str, str], *, connect_s: float = CONNECT_S
) -> QueueClient | QueueProgram:
    """Where `inject` puts a message, for those who have it in pieces.

    Raises: TempFail when no process can be made.
    """
    program = environ.get("QMAILQUEUE") or _classic_program(home)
    if not program:
        return QueueClient(home, connect_s)
    from qsend.sysio.queueprogram import QueueProgram  # noqa: PLC0415 - rarely needed

    return QueueProgram(program, home, environ)


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
        is_ours = not posix.stat(path).st_mode & S_ISUID
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
