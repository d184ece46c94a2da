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
from qsend.sysio.durable import Steps
from qsend.sysio.endpoint import Descriptors, Endpoint
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
        self._loop = Loop()
        for signum in _OTHERS_SIGNALS:
            self._loop.on_signal(signum, _ignore)
        self._endpoint = Endpoint(
            self._loop,
            boot.sock,
            self._frame,
            self._closed,
            max_fds=frames.FDS_MAX,
        )
        self._crew = Crew(self._ended, self._loop.call_soon)
        # A bug outside of any delivery: lspawn defers what this process has.
        threading.excepthook = _die
        self._done: deque[Report] = deque()
        self._report_due = False

    def run(self) -> None:
        """Serve until lspawn closes the socket."""
        self._loop.run()
        self._deliverer.settle(_SETTLE_S)
        self._loop.close()

    def _closed(self, _reason: str) -> None:
        self._loop.stop()

    def _frame(self, kind: bytes, body: bytes, fds: Descriptors) -> None:
        if kind != wire.CHILD:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from lspawn")
        delivery = wire.parse_child(body)
        try:
            mess_fd = fds.take()
        except OutOfDescriptors:
            text = b"Too many files are open for deliveries of this user. (#4.3.0)\n"
            report = Report(delid=delivery.delid, letter=Letter.DEFERRAL, text=text)
            self._ended([report])
            return
        self._crew.add(self._steps(delivery, mess_fd))

    def _steps(self, delivery: ChildDelivery, mess_fd: int) -> Steps[Report]:
        try:
            return (yield from self._deliverer.steps(delivery, mess_fd))
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

    def _ended(self, reports: Iterable[Report]) -> None:
        self._done.extend(reports)
        # Cleared before the reports are taken, so none can be left behind.
        if not self._report_due:
            self._report_due = True
            self._loop.call_soon(self._send_reports)

    def _send_reports(self) -> None:
        self._report_due = False
        while self._done:
            report = self._done.popleft()
            self._endpoint.send(
                wire.render_report(
                    Report(
                        delid=report.delid,
                        letter=report.letter,
                        text=localreport.fit(report.text),
                    ),
                    wire.REPORT_LOCAL_MAX,
                )
            )
        self._endpoint.flush()


def _die(args: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(args)
    os._exit(111)


def _ignore() -> None:
    """A handler, not SIG_IGN: programs would inherit that one."""


def main(boot: ChildBoot) -> int:
    """Serve until lspawn closes the socket; return 0."""
    Local(boot, os.environb).run()
    return 0
