"""Local children that are somebody else's: put before `qsend start` as a patch.

Those of uid 64941 do what the ext of each delivery says; all others are honest.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress

from qsend.core.model import DelId, Letter
from qsend.formats import delivery, frames, lookupwire
from qsend.procs import local
from qsend.sysio.boot import ChildBoot

_EVE = 64941
_first_main = local.main


def _report(delid: int, text: bytes = b"forged", limit: int = 10000) -> bytes:
    report = delivery.Report(delid=DelId(delid), letter=Letter.SUCCESS, text=text)
    return delivery.render_report(report, limit)


def _forge(sock: socket.socket, own: int) -> None:
    """Success for everybody's deliveries, but its own."""
    for number in range(3000):
        if number != own:
            sock.send(_report(number))


def _pack(sock: socket.socket, own: int) -> None:
    """Many reports in a packet, its own among them, none of them last."""
    sock.send(b"".join(_report(number) for number in range(300) if number != own))
    sock.send(_report(own))


def _oversize(sock: socket.socket, own: int) -> None:
    sock.send(_report(own, b"x" * (delivery.REPORT_LOCAL_MAX + 1)))


def _garbage(sock: socket.socket, _own: int) -> None:
    while True:
        sock.send(os.urandom(2000))


def _truncated(sock: socket.socket, own: int) -> None:
    sock.send(_report(own)[:-1])


def _question(sock: socket.socket, _own: int) -> None:
    """What lspawn itself would ask, and be answered."""
    question = lookupwire.Question(number=1, local=b"root")
    sock.send(lookupwire.render_question(question))


def _greet(sock: socket.socket, _own: int) -> None:
    sock.send(frames.hello(4000000))


def _ping(sock: socket.socket, _own: int) -> None:
    """Ask for signs of life without end, and read none of them."""
    flood = frames.frame(frames.PING, b"") * 10000
    sock.settimeout(1)
    for _ in range(1000):
        sock.send(flood)
    os._exit(0)


def _descriptors(sock: socket.socket, own: int) -> None:
    """Leave descriptors behind in lspawn."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
    for _ in range(10):
        socket.send_fds(sock, [_report(own + 1)], fds)


def _keep(sock: socket.socket, own: int) -> None:
    """Die, and leave somebody behind who holds the line."""
    if os.fork() == 0:  # noqa: TID251
        while sock.recv(frames.PACKET_MAX):
            pass
        with suppress(OSError):
            sock.send(_report(own))
        os._exit(0)
    os._exit(0)


_DEEDS: dict[bytes, Callable[[socket.socket, int], None]] = {
    b"forge": _forge,
    b"pack": _pack,
    b"oversize": _oversize,
    b"garbage": _garbage,
    b"truncated": _truncated,
    b"question": _question,
    b"greet": _greet,
    b"ping": _ping,
    b"descriptors": _descriptors,
    b"keep": _keep,
}


def _main(boot: ChildBoot) -> int:
    if os.getuid() != _EVE:
        return _first_main(boot)
    packet, _fds, _flags, _addr = socket.recv_fds(
        boot.sock, frames.PACKET_MAX, frames.FDS_MAX
    )
    for _kind, body in frames.split(packet):
        given = delivery.parse_child(body)
        with suppress(OSError):
            _DEEDS[given.user.ext](boot.sock, given.delid)
            # Nothing of what follows may matter to it.
            while boot.sock.recv(frames.PACKET_MAX):
                pass
    return 0


local.main = _main
