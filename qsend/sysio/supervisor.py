"""The service manager that has started us, if one has: telling it, taking its sockets.

Source: sd_notify(3), sd_listen_fds(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence

from qsend.formats.listeners import Listener
from qsend.formats.supervision import FIRST_DESCRIPTOR, Offer


class Supervisor:
    """Where to tell how we do; one that listens nowhere is told nothing."""

    def __init__(self, address: bytes | None) -> None:
        """`address` is of a unix datagram socket, as connect(2) wants it."""
        self._address = address
        self._sock: socket.socket | None = None
        if address is not None:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sock.setblocking(False)

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return self._sock is not None

    def tell(self, *words: bytes) -> None:
        """Tell it in one packet. What it cannot take is lost; mail goes on."""
        if self._sock is None or self._address is None:
            return
        with contextlib.suppress(OSError):
            self._sock.sendto(b"\n".join(words), self._address)

    def close(self) -> None:
        """Tell nothing more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class LentSockets:
    """Listening sockets that the service manager holds, and lends to us.

    It made their names, and removes them; clients wait there while we do not run.
    """

    def __init__(self, socks: Sequence[socket.socket] = ()) -> None:
        self._socks = list(socks)

    def take_unix(self, path: str) -> socket.socket | None:
        """The SEQPACKET socket at `path`; None without one."""
        for sock in self._socks:
            if _kind(sock) == (socket.AF_UNIX, socket.SOCK_SEQPACKET) and _same(
                sock.getsockname(), path
            ):
                self._socks.remove(sock)
                return sock
        return None

    def take_tcp(self, listener: Listener) -> list[socket.socket]:
        """All sockets of that address and port; they may be several."""
        found = [sock for sock in self._socks if _is_of(sock, listener)]
        for sock in found:
            self._socks.remove(sock)
        return found

    def close(self) -> Iterator[str]:
        """Give back those that nobody took; the name of each."""
        while self._socks:
            sock = self._socks.pop()
            name = _name(sock)
            sock.close()
            yield name


def take_lent(offer: Offer) -> LentSockets:
    """The sockets of the offer; what is there and is no socket is closed."""
    socks = []
    for fd in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + offer.descriptors):
        try:
            os.set_inheritable(fd, False)
            socks.append(socket.socket(fileno=fd))
        except OSError:
            with contextlib.suppress(OSError):
                os.close(fd)
    return LentSockets(socks)


def _kind(sock: socket.socket) -> tuple[int, int] | None:
    """Family and type of a socket that listens."""
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    return sock.family, sock.type


def _same(one: object, other: str) -> bool:
    """Whether both are the same path; parts of one may be links."""
    if one == other:
        return True
    try:
        return isinstance(one, str) and one != "" and os.path.samefile(one, other)
    except OSError:
        return False


def _is_of(sock: socket.socket, listener: Listener) -> bool:
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    if _kind(sock) != (family, socket.SOCK_STREAM):
        return False
    address, port, *_ = sock.getsockname()
    return (address, port) == (listener.address, listener.port)


def _name(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, tuple):
        return str(Listener(address=str(name[0]), port=int(name[1])))
    return os.fsdecode(name) or "a socket without a name"
