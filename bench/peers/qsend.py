"""qsend, from this checkout."""

from __future__ import annotations

from bench.peers.base import QMQP_PORT, SMTP_PORT
from bench.peers.qmailqueue import DEFAULT_DELIVERY, QmailQueue
from bench.sink import reachable

LOCAL_SLOTS = 150


class Qsend(QmailQueue):
    """A tree with the machine's real accounts."""

    name = "qsend"

    def controls(self) -> dict[str, str]:
        slots = str(self.site.slots)
        found = {
            **self.routes(),
            "durability": self.site.durability,
            "concurrencyremote": "0" if self.site.is_held else slots,
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

    def release(self) -> None:
        (self.path / "control/concurrencyremote").write_text(f"{self.site.slots}\n")
        self.run(*self.command("reload"))

    def sendmail(self, recip: str) -> list[str]:
        return [str(self.path / "bin/sendmail"), "-f", "bench@sender.example", recip]

    def queue_program(self) -> list[str]:
        return [str(self.path / "bin/qmail-queue")]

    def command(self, name: str, default: str = "") -> list[str]:
        """The command line of `qsend NAME`."""
        more = ["--default-delivery", default] if default else []
        return [self.python, "-m", "qsend", name, "--home", str(self.path), *more]
