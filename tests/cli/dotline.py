"""Programs of dot-qmail lines, run as such a line would run them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from qsend.sysio.launchers import PROGRAMS
from tests.cli.recorder import Outcome, Recorder

MESSAGE = b"Subject: one\nMessage-ID: <1@x>\n\nFrom here\nlast line"
UFLINE = "From s@t Thu Jan 01 00:00:00 1970\n"
RPLINE = "Return-Path: <s@t>\n"
DTLINE = "Delivered-To: joe-ext@h.org\n"
LINES = (UFLINE + RPLINE + DTLINE).encode()
VARIABLES = {
    "SENDER": "s@t",
    "NEWSENDER": "new@t",
    "RECIPIENT": "joe-ext@h.org",
    "LOCAL": "joe-ext",
    "EXT": "ext",
    "HOST": "h.org",
    "USER": "joe",
    "UFLINE": UFLINE,
    "RPLINE": RPLINE,
    "DTLINE": DTLINE,
}


class DotLine:
    """A home with a recording queue; the current directory of the programs."""

    def __init__(self, tmp: Path) -> None:
        self.recorder = Recorder(tmp)
        self.tmp = tmp

    @property
    def home(self) -> Path:
        return self.recorder.home

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> Path:
        """A file in the programs' current directory."""
        path = self.tmp / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def read(self, name: str) -> bytes:
        return (self.tmp / name).read_bytes()

    def run(
        self,
        program: str,
        *args: str,
        content: bytes = MESSAGE,
        unset: tuple[str, ...] = (),
        is_pipe: bool = False,
        environ: Mapping[str, str] | None = None,
        **variables: str,
    ) -> Outcome:
        """Run it with the message as a file (or a pipe) on descriptor 0.

        Variables are those of a delivery but the `unset`, then `environ`, then the
        other arguments.
        """
        for name in ("message", "envelope"):
            (self.recorder.record / name).unlink(missing_ok=True)
        own = {**self.recorder.environ, **VARIABLES, **(environ or {}), **variables}
        for name in unset:
            del own[name]
        source = self.write("incoming", content)
        command = self.recorder.command(PROGRAMS[program][0], "main(args)", args)
        with source.open("rb") as file:
            done = subprocess.run(
                ["/bin/sh", "-c", 'cat | exec "$@"', "sh", *command]
                if is_pipe
                else command,
                stdin=file,
                env=own,
                cwd=self.tmp,
                capture_output=True,
                check=False,
                timeout=60,
            )
        queued = self.recorder.record / "envelope"
        return Outcome(
            code=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            message=(self.recorder.record / "message").read_bytes()
            if queued.exists()
            else b"",
            envelope=queued.read_bytes() if queued.exists() else None,
        )
