"""A home with qmail's queue and control files: qsend's own, and notqmail's too."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from bench.letters import SENDER, Letter
from bench.peers.base import HOST, Site, System, count_files
from qsend.sysio import trigger
from tests.longqueue import Mail, fill_todo
from tests.tree.harness import Installation, install

DEFAULT_DELIVERY = "./Maildir/"


@functools.cache
def installation() -> Installation:
    """Made once, as an operator has it: a checkout starts more slowly."""
    path = Path(tempfile.mkdtemp(prefix="qsend-bench-install-", dir="/tmp"))
    path.chmod(0o755)
    atexit.register(shutil.rmtree, path)
    return install(path / "venv")


class QmailQueue(System):
    """Set up by `qsend setup`; messages are written straight into todo/."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.queue_path = self.path / "queue"
        self._mess = [self.queue_path / "mess" / str(n) for n in range(23)]

    def set_up(self) -> None:
        setup = ("-m", "qsend", "setup", "--home", str(self.path), "--me", HOST)
        self.run(self.python, *setup)
        for name, content in self.controls().items():
            (self.path / "control" / name).write_text(content + "\n")
        if self.site.mailboxes is not None:
            self._assign()

    @abstractmethod
    def controls(self) -> dict[str, str]:
        """Its control files."""

    def routes(self) -> dict[str, str]:
        """The controls that both kinds have."""
        found = {"rcpthosts": f"{HOST}\nsink.example\n.sink.example"}
        if self.site.relay is not None:
            found["smtproutes"] = f":127.0.0.1:{self.site.relay}"
        return found

    def settings(self) -> dict[str, str]:
        return self.controls()

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "QSEND_HOME": str(self.path)}

    @property
    def python(self) -> str:
        """The interpreter of an installed copy of qsend."""
        return str(installation().python)

    def run(self, *command: str, given: bytes = b"") -> None:
        """Run something to its end."""
        subprocess.run(
            command,
            input=given,
            check=True,
            cwd="/",
            env=self.environ(),
            stdout=subprocess.DEVNULL,
        )

    def _assign(self) -> None:
        boxes = self.site.mailboxes
        assert boxes is not None
        lines = [
            f"=u{n}:u{n}:{boxes.uid(n)}:{boxes.uid(n)}:{boxes.home(n)}:::\n"
            for n in range(boxes.count)
        ]
        (self.path / "users/assign").write_text("".join(lines) + ".\n")
        self.run(str(self.path / "bin/qmail-newu"))

    def queue(self, letters: Sequence[Letter]) -> None:
        if self.process is None:
            self.boot()
        fill_todo(self.queue_path, map(mail_of, letters))

    def go(self) -> None:
        trigger.pull(str(self.queue_path / "lock/trigger"))

    def backlog(self) -> int:
        return count_files(self._mess)


def mail_of(letter: Letter) -> Mail:
    """What is to be written for it."""
    return Mail(letter.content(), SENDER, letter.recips)
