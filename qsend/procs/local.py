"""local: one account's deliveries, several at a time, for as long as there is work.

uid and gid of the account (already dropped and proven by lspawn's side of the
fork, which also sets the title). Descriptors at entry: 0, 1, 2 and the socket to
lspawn. Writes what the account's dot-qmail files say, nothing else. Exit code: 0
when lspawn closes the socket; 111 (from the fork) after an exception outside a
delivery.

no_new_privs must not be set here, unlike in every other process: programs in
dot-qmail files may be setuid or setgid (procmail, sudo, qmail-queue of an older
installation), and would silently run without what their file grants.
Source: docs/ARCHITECTURE.md; qmail-lspawn(8), qmail-local(8).
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from qsend.core import localreport
from qsend.core.errors import OutOfDescriptors, RemoteProtocolError
from qsend.core.model import Letter
from qsend.formats import delivery as wire
from qsend.formats import frames
from qsend.formats.delivery import ChildDelivery, Report
from qsend.sysio import mailqueue
from qsend.sysio.boot import ChildBoot
from qsend.sysio.closing import close_read
from qsend.sysio.crew import Crew
from qsend.sysio.durable import BLOCKS, Steps, finish_from
from qsend.sysio.endpoint import LACKS_FDS, Descriptors, Endpoint
from qsend.sysio.fork import pass_over
from qsend.sysio.localdelivery import Deliverer, Settings
from qsend.sysio.loop import Loop
from qsend.sysio.programenv import program_base

_SETTLE_S = 10.0
"""How long the end waits for half-written files: far longer than a write takes,
shorter than start's patience with a child that does not end."""

_OTHERS_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Meant for start when they reach the whole process group (a terminal's Ctrl-C, a
service manager): this process ends by its socket, its work done."""


class Local:
    """Takes deliveries from lspawn and reports each of them once."""

    def __init__(self, boot: ChildBoot, environ: Mapping[bytes, bytes]) -> None:
        base = program_base(boot.home, environ)

        def inject(
            chunks: Iterable[bytes],
            sender: bytes,
            recips: Sequence[bytes],
            environ: Mapping[str, str],
        ) -> int:
            return mailqueue.inject(boot.home, chunks, sender, recips, environ)

        settings = Settings(
            patrn=boot.controls.patrn,
            default_delivery=boot.default_delivery,
            durability=boot.controls.durability,
            base=base,
            collects=True,
        )
        self._deliverer = Deliverer(settings, inject)
        self._sock = boot.sock
        pass_over(_OTHERS_SIGNALS)

    def run(self) -> None:
        """Serve until lspawn closes the socket.

        The first delivery is carried out without the loop, if it comes alone and does
        not block: for most accounts there is no other in the process's life, and the
        loop would be a tenth of what it costs.
        """
        blocking: Steps[Report] | None = None
        try:
            if self._is_one_waiting():
                blocking = self._first()
                if blocking is None and not self._sock.recv(1, socket.MSG_PEEK):
                    return
        except (ConnectionResetError, BrokenPipeError):
            pass  # lspawn has gone; what it sent before is still to be read
        except RemoteProtocolError:
            return
        _Crowd(self._sock, self._deliverer, blocking).run()

    def _is_one_waiting(self) -> bool:
        """Wait for a packet; whether it is one delivery."""
        packet = self._sock.recv(frames.PACKET_MAX, socket.MSG_PEEK)
        return frames.is_one(packet, wire.CHILD)

    def _first(self) -> Steps[Report] | None:
        """Carry it out and report; its steps, when it is going to block."""
        packet, fds, flags, _ = socket.recv_fds(
            self._sock, frames.PACKET_MAX, frames.FDS_MAX
        )
        [(_kind, body)] = frames.split(packet)
        descriptors = Descriptors(fds, is_short=bool(flags & LACKS_FDS))
        try:
            taken = _take(self._deliverer, body, descriptors)
        finally:
            descriptors.close_rest()
        if not isinstance(taken, Report):
            try:
                fd = next(taken)
            except StopIteration as end:
                taken = end.value
            else:
                if fd == BLOCKS:
                    return taken
                taken = finish_from(taken, fd)
        self._sock.send(_rendered(taken))
        return None


class _Crowd:
    """Many deliveries at once, until lspawn closes the socket."""

    def __init__(
        self,
        sock: socket.socket,
        deliverer: Deliverer,
        blocking: Steps[Report] | None,
    ) -> None:
        """`blocking`: a delivery that has been begun."""
        self._deliverer = deliverer
        self._loop = Loop()
        self._endpoint = Endpoint(
            self._loop, sock, self._frame, self._closed, max_fds=frames.FDS_MAX
        )
        self._crew = Crew(self._ended, self._loop.call_soon)
        # A bug outside of any delivery: lspawn defers what this process has.
        threading.excepthook = _die
        self._done: deque[Report] = deque()
        self._report_due = False
        if blocking is not None:
            self._crew.go_on_blocking(blocking)

    def run(self) -> None:
        self._loop.run()
        self._deliverer.settle(_SETTLE_S)
        self._loop.close()

    def _closed(self, _reason: str) -> None:
        self._loop.stop()

    def _frame(self, kind: bytes, body: bytes, fds: Descriptors) -> None:
        if kind != wire.CHILD:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from lspawn")
        taken = _take(self._deliverer, body, fds)
        if isinstance(taken, Report):
            self._ended([taken])
        else:
            self._crew.add(taken)

    def _ended(self, reports: Iterable[Report]) -> None:
        self._done.extend(reports)
        # Cleared before the reports are taken, so none can be left behind.
        if not self._report_due:
            self._report_due = True
            self._loop.call_soon(self._send_reports)

    def _send_reports(self) -> None:
        self._report_due = False
        while self._done:
            self._endpoint.send(_rendered(self._done.popleft()))
        self._endpoint.flush()


def _take(
    deliverer: Deliverer, body: bytes, fds: Descriptors
) -> Steps[Report] | Report:
    """What lspawn asks for, or the report when it cannot be begun.

    Raises: RemoteProtocolError when it is no delivery or came without its message.
    """
    delivery = wire.parse_child(body)
    try:
        mess_fd = fds.take()
    except OutOfDescriptors:
        text = b"Too many files are open for deliveries of this user. (#4.3.0)\n"
        return Report(delid=delivery.delid, letter=Letter.DEFERRAL, text=text)
    return _steps(deliverer, delivery, mess_fd)


def _steps(
    deliverer: Deliverer, delivery: ChildDelivery, mess_fd: int
) -> Steps[Report]:
    try:
        return (yield from deliverer.steps(delivery, mess_fd))
    except Exception as exc:  # noqa: BLE001 - the delivery's outermost handler
        # A bug that one message meets must not end the others' deliveries.
        words = f"Internal trouble: {type(exc).__name__}: {exc}. (#4.3.0)\n"
        return Report(
            delid=delivery.delid,
            letter=Letter.DEFERRAL,
            text=words.encode("utf-8", "backslashreplace"),
        )
    finally:
        close_read(mess_fd)


def _rendered(report: Report) -> bytes:
    return wire.render_report(
        Report(
            delid=report.delid,
            letter=report.letter,
            text=localreport.fit(report.text),
        ),
        wire.REPORT_LOCAL_MAX,
    )


def _die(args: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(args)
    os._exit(111)


def main(boot: ChildBoot) -> int:
    """Serve until lspawn closes the socket; return 0."""
    Local(boot, os.environb).run()
    return 0
