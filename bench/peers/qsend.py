"""qsend, from this checkout."""

from __future__ import annotations

import os
import subprocess
import sys

from bench.peers.base import QMQP_PORT, SMTP_PORT
from bench.peers.qmailqueue import DEFAULT_DELIVERY, QmailQueue
from bench.sink import reachable
from bench.tree import ROOT

LOCAL_SLOTS = 50


class Qsend(QmailQueue):
    """A tree with the machine's real accounts."""

    name = "qsend"

    def controls(self) -> dict[str, str]:
        slots = str(self.site.slots)
        found = {
            **self.routes(),
            "durability": self.site.durability,
            "concurrencyremote": "0" if self.site.is_held else slots,
            "concurrencyperhost": slots,
            "concurrencylocal": str(LOCAL_SLOTS),
            "concurrencyperuser": str(LOCAL_SLOTS),
        }
        if self.site.listens:
            found["smtplisten"] = f"127.0.0.1:{SMTP_PORT}"
            found["qmqplisten"] = f"127.0.0.1:{QMQP_PORT}"
        return found

    def boot(self) -> None:
        self.process = self.spawn(self._command("start", DEFAULT_DELIVERY))
        self.wait(lambda: b"status: local 0/" in self.log.read_bytes(), "is not up")
        if self.site.listens:
            self.wait(lambda: reachable("127.0.0.1", SMTP_PORT), "takes no SMTP")

    def release(self) -> None:
        (self.path / "control/concurrencyremote").write_text(f"{self.site.slots}\n")
        subprocess.run(
            self._command("reload"), check=True, cwd=ROOT, stdout=subprocess.DEVNULL
        )

    def sendmail(self, recip: str) -> list[str]:
        return [str(self.path / "bin/sendmail"), "-f", "bench@sender.example", recip]

    def queue_program(self) -> list[str]:
        return [str(self.path / "bin/qmail-queue")]

    def environ(self) -> dict[str, str]:
        # The programs in bin/ must find this checkout's package, wherever they run.
        return {**super().environ(), "PYTHONPATH": os.fspath(ROOT)}

    def _command(self, name: str, default: str = "") -> list[str]:
        more = ["--default-delivery", default] if default else []
        return [sys.executable, "-m", "qsend", name, "--home", str(self.path), *more]
