"""A home, a queue program that records what it gets, and programs run against it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """#!/bin/sh
cat >"$RECORD/message" || exit 91
cat <&1 >"$RECORD/envelope" || exit 91
printf %s "$QUEUE_SAYS" >&6
exit "${QUEUE_EXIT:-0}"
"""
"""Copies fd 0 and fd 1, says $QUEUE_SAYS on fd 6, exits with $QUEUE_EXIT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended; `envelope` is None when nothing reached the queue."""

    code: int
    stdout: bytes
    stderr: bytes
    message: bytes
    envelope: bytes | None

    @property
    def header(self) -> list[bytes]:
        """The queued header's lines."""
        return self.message.partition(b"\n\n")[0].split(b"\n")

    @property
    def sender(self) -> bytes:
        """The envelope sender."""
        assert self.envelope is not None
        return self.envelope.split(b"\0")[0].removeprefix(b"F")

    @property
    def recips(self) -> list[bytes]:
        """The envelope recipients."""
        assert self.envelope is not None
        assert self.envelope.endswith(b"\0\0")
        records = self.envelope[:-2].split(b"\0")[1:]
        assert all(record.startswith(b"T") for record in records)
        return [record[1:] for record in records]


class Recorder:
    """A home directory with controls, and a recording queue program."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = path / "home"
        self.record = path / "record"
        self.record.mkdir()
        (self.home / "control").mkdir(parents=True)
        (self.home / "bin").mkdir()
        self.control("me", "me.example.org")
        self.script = path / "queue"
        self.script.write_text(SCRIPT)
        self.script.chmod(0o755)

    def control(self, name: str, line: str) -> None:
        """Write one control file."""
        (self.home / "control" / name).write_text(line + "\n")

    @property
    def environ(self) -> dict[str, str]:
        """The environment of every run."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "QSEND_HOME": str(self.home),
            "QMAILQUEUE": str(self.script),
            "RECORD": str(self.record),
            "USER": "joe",
        }

    def command(self, module: str, call: str, args: Sequence[str]) -> list[str]:
        """How to run `call` (which may use `args`) after importing main."""
        code = f"import sys; from qsend.cli.{module} import main; args = sys.argv[1:]; "
        return [sys.executable, "-W", "error", "-c", code + f"sys.exit({call})", *args]

    def run(
        self,
        module: str,
        call: str,
        args: Sequence[str],
        content: bytes,
        environ: Mapping[str, str],
    ) -> Outcome:
        """Run a program to its end and collect what it did."""
        done = subprocess.run(
            self.command(module, call, args),
            input=content,
            env={**self.environ, **environ},
            cwd=self.path,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return Outcome(
            code=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            message=self._read("message") or b"",
            envelope=self._read("envelope"),
        )

    def _read(self, name: str) -> bytes | None:
        path = self.record / name
        return path.read_bytes() if path.exists() else None
