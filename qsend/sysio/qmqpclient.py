"""Handing a message to the first QMQP server that takes it.

The request is in a file, so that it can be sent again and no message has to fit into
memory. A server that cannot be reached, breaks off, or wants the message later makes
way for the next; one that refuses it has decided. A server that took the message and
broke off before it said so leaves a second copy: never none.
Source: qmail-qmqpc.c, where the first connection decides.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import Letter
from qsend.formats.qmqp import AnswerReader, Server
from qsend.formats.queueexit import QueueExit
from qsend.sysio import clock

CONNECT_S = 10.0
STEP_S = 60.0
"""How long a server may take nothing, or keep its answer back (qmail-qmqpc.c)."""
_READ_MAX = 65536
_EXITS = {
    Letter.SUCCESS: QueueExit.QUEUED,
    Letter.DEFERRAL: QueueExit.BUSY,
    Letter.FAILURE: QueueExit.REFUSED,
}


class Spool:
    """A request: `message`, `end_message`, `envelope`, `end`; then `send`.

    All raise OSError.
    """

    def __init__(self) -> None:
        """Without any place for a temporary file: OSError."""
        self._file = os.fdopen(_unnamed(), "w+b")
        self._message_bytes = 0
        self._bytes = 0

    def close(self) -> None:
        """Give the file up."""
        self._file.close()

    def message(self, data: bytes) -> None:
        """Add to the message."""
        self._write(data)

    def end_message(self) -> None:
        """The message is complete."""
        self._message_bytes = self._bytes
        self._write(b",")

    def envelope(self, netstrings: bytes) -> None:
        """Add addresses."""
        self._write(netstrings)

    def end(self) -> None:
        """The request is complete."""
        self._file.flush()

    @property
    def length(self) -> int:
        """Of the netstring that `send` sends."""
        return len(self._inner_head) + self._bytes

    def send(self, sock: socket.socket) -> None:
        """Send the request; may be repeated on another socket."""
        sock.sendall(b"%d:%b" % (self.length, self._inner_head), socket.MSG_MORE)
        self._file.seek(0)
        sock.sendfile(self._file)
        sock.sendall(b",")

    @property
    def _inner_head(self) -> bytes:
        return b"%d:" % self._message_bytes

    def _write(self, data: bytes) -> None:
        self._bytes += self._file.write(data)


def _unnamed() -> int:
    """A file that nobody else can open. Raises: OSError when no place has one."""
    for place in filter(None, (os.environ.get("TMPDIR"), "/tmp")):
        with contextlib.suppress(OSError):
            return _unnamed_in(place)
    return _unnamed_in("/var/tmp")


def _unnamed_in(place: str) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(place, flags | os.O_TMPFILE, 0o600)
    except OSError:
        # Not every file system knows them.
        path = f"{place}/qmail-qmqpc.{os.getpid()}.{os.urandom(8).hex()}"
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
        return fd


def submit(servers: Iterable[Server], spool: Spool) -> QueueExit:
    """Offer a request to one server after the other; qmail-queue's exit code.

    CONFIG when there is no server. If all fail the answer is BUSY where one wanted
    the message later, else what was wrong with the last.
    """
    code, is_wanted_later = QueueExit.CONFIG, False
    for server in servers:
        for family, address in _addresses(server):
            code = _offer(family, address, spool)
            if code in (QueueExit.QUEUED, QueueExit.REFUSED):
                return code
            is_wanted_later |= code == QueueExit.BUSY
        if code == QueueExit.CONFIG:
            code = QueueExit.NETWORK  # its name has no address, or not now
    return QueueExit.BUSY if is_wanted_later else code


def _addresses(server: Server) -> Iterator[tuple[int, Any]]:
    """(family, socket address) of each of its addresses, none without any."""
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    for family, _type, _protocol, _name, address in found:
        yield family, address


def _offer(family: int, address: Any, spool: Spool) -> QueueExit:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return QueueExit.NETWORK
    with sock:
        try:
            sock.settimeout(CONNECT_S)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except TimeoutError:
            return QueueExit.CONNECT_TIMEOUT
        except OSError:
            return QueueExit.CONNECT_REFUSED
        return _speak(sock, spool)


def _speak(sock: socket.socket, spool: Spool) -> QueueExit:
    sock.settimeout(STEP_S)
    is_sent = True
    try:
        spool.send(sock)
    except TimeoutError:
        return QueueExit.CONNECTION_LOST
    except OSError:
        is_sent = False  # it may have said why it does not listen
    try:
        letter = _answer(sock)
    except (OSError, RemoteProtocolError):
        return QueueExit.CONNECTION_LOST
    if letter is None or (letter is Letter.SUCCESS and not is_sent):
        return QueueExit.CONNECTION_LOST
    return _EXITS[letter]


def _answer(sock: socket.socket) -> Letter | None:
    """The server's verdict; None when it hangs up without one.

    Raises: OSError, also when time is over; RemoteProtocolError.
    """
    reader = AnswerReader()
    end_mono = clock.mono() + STEP_S
    while (left_s := end_mono - clock.mono()) > 0:
        sock.settimeout(left_s)
        data = sock.recv(_READ_MAX)
        if not data:
            return None
        letter = reader.feed(data)
        if letter is not None:
            return letter
    raise TimeoutError
