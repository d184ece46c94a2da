"""notqmail, when $NOTQMAIL_HOME says where a build is installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pwd import getpwnam

from bench.peers.base import QMQP_PORT, SMTP_PORT, STOP_S, Site
from bench.peers.qmailqueue import DEFAULT_DELIVERY, QmailQueue
from bench.sink import reachable
from tests.interop import notqmail

SLOTS_MAX = 120
"""Its compiled-in conf-spawn, as it comes."""


def is_there() -> bool:
    """Whether there is a build."""
    return not notqmail.is_absent


class Notqmail(QmailQueue):
    """Its programs on a home of the suite's, in a mount namespace of their own."""

    name = "notqmail"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._listeners: list[subprocess.Popen[bytes]] = []

    def controls(self) -> dict[str, str]:
        return {
            **self.routes(),
            "concurrencyremote": str(min(self.site.slots, SLOTS_MAX)),
            "concurrencylocal": str(min(self.site.slots, SLOTS_MAX)),
        }

    def environ(self) -> dict[str, str]:
        path = f"{notqmail.HOME}/bin:{os.environ['PATH']}"
        return {**super().environ(), "PATH": path}

    def boot(self) -> None:
        if self.site.listens:
            self._listen("qmail-smtpd", "qmaild", SMTP_PORT)
            self._listen("qmail-qmqpd", "qmaild", QMQP_PORT)
        if not self.site.is_held:
            self._start()

    def release(self) -> None:
        self._start()

    def roots(self) -> list[int]:
        return super().roots() + [each.pid for each in self._listeners]

    def stop(self, patience_s: float = STOP_S) -> None:
        for each in self._listeners:
            each.terminate()
            each.wait(10)
        self._listeners.clear()
        super().stop(patience_s)

    def queue_program(self) -> list[str]:
        return [notqmail.program("qmail-queue")]

    def inside(self, command: Sequence[str]) -> list[str]:
        return notqmail.on_home(self.path, command)

    def _start(self) -> None:
        command = [notqmail.program("qmail-start"), DEFAULT_DELIVERY]
        self.process = self.spawn(self.inside(command))
        self.wait(lambda: b"status: local 0/" in self.log.read_bytes(), "is not up")

    def _listen(self, program: str, account: str, port: int) -> None:
        ids = getpwnam(account)
        server = [
            "tcpserver", "-R", "-H", "-l", "bench.example", "-c", "100", "-b", "100",
            "-u", str(ids.pw_uid), "-g", str(ids.pw_gid), "127.0.0.1", str(port),
            notqmail.program(program),
        ]  # fmt: skip
        self._listeners.append(self.spawn(self.inside(server)))
        self.wait(lambda: reachable("127.0.0.1", port), f"no {program}")
