"""qsend, from this checkout."""

from __future__ import annotations

import psutil

from bench.errors import BenchError
from bench.peers.base import QMQP_PORT, SMTP_PORT, STOP_S, Site
from bench.peers.qmailqueue import DEFAULT_DELIVERY, QmailQueue
from bench.sink import reachable

LOCAL_SLOTS = 150


class Qsend(QmailQueue):
    """A tree with the machine's real accounts."""

    name = "qsend"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._held: psutil.Process | None = None

    def controls(self) -> dict[str, str]:
        found = {
            **self.routes(),
            "durability": self.site.durability,
            "concurrencyremote": str(self.site.slots),
            "concurrencyperhost": str(self.site.per_host),
            "concurrencylocal": str(LOCAL_SLOTS),
            "concurrencyperuser": str(LOCAL_SLOTS),
        }
        if self.site.listens:
            found["smtplisten"] = f"127.0.0.1:{SMTP_PORT}"
            found["qmqplisten"] = f"127.0.0.1:{QMQP_PORT}"
        return found

    def boot(self) -> None:
        rules = self.path / "control/tcp.qmqp.cdb"
        self.run(
            *(self.python, "-m", "qsend", "tcprules", str(rules), f"{rules}.tmp"),
            given=b"127.:allow\n",
        )
        self.process = self.spawn(self.command("start", DEFAULT_DELIVERY))
        self.wait(lambda: b"status: local 0/" in self.log.read_bytes(), "is not up")
        if self.site.listens:
            self.wait(lambda: reachable("127.0.0.1", SMTP_PORT), "takes no SMTP")
        if self.site.is_held:
            # As the others, which run without a queue manager until `release`.
            self._held = self._send()
            self._held.suspend()

    def release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.resume()

    def stop(self, patience_s: float = STOP_S) -> None:
        self.release()
        super().stop(patience_s)

    def _send(self) -> psutil.Process:
        assert self.process is not None
        for each in psutil.Process(self.process.pid).children():
            if each.cmdline()[0].startswith("qmail-send:"):
                return each
        raise BenchError("qsend has no qmail-send")

    def sendmail(self, recip: str) -> list[str]:
        return [str(self.path / "bin/sendmail"), "-f", "bench@sender.example", recip]

    def queue_program(self) -> list[str]:
        return [str(self.path / "bin/qmail-queue")]

    def command(self, name: str, default: str = "") -> list[str]:
        """The command line of `qsend NAME`."""
        more = ["--default-delivery", default] if default else []
        return [self.python, "-m", "qsend", name, "--home", str(self.path), *more]
