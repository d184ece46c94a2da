"""The same program of notqmail's and of ours, run on the same input.

with Pair(home, ["qmail_inject"]) as pair:
    theirs = pair.theirs("qmail-inject", ["-n"], stdin=b"To: x\n")
    ours = pair.ours("qmail_inject", ["-n"], stdin=b"To: x\n")
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings

from tests.interop import notqmail
from tests.programs import ROOT

USER = 64930
"""Uid and gid of those who run the programs."""

GENERATED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
"""For generated cases: the same ones in every run, as each runs real programs."""


@dataclass(frozen=True)
class Ran:
    """How a program ended; `out` has both outputs when they were one file."""

    code: int
    out: bytes
    err: bytes = b""


class Pair:
    """One process that runs both sides on one home; use it in a `with` block."""

    def __init__(self, home: Path, modules: Sequence[str]) -> None:
        self._home = home
        runner = [sys.executable, "-m", "tests.interop.runner", *modules]
        self._process = subprocess.Popen(
            notqmail.on_home(home, runner),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(30) == 0

    def theirs(self, name: str, args: Sequence[bytes], **more: object) -> Ran:
        """Run one of notqmail's."""
        argv = [notqmail.program(name).encode(), *args]
        return self._run(argv, None, **more)  # type: ignore[arg-type] # see _run

    def ours(self, module: str, args: Sequence[bytes], **more: object) -> Ran:
        """Run one of ours, which the constructor was told of."""
        argv = [module.encode(), *args]
        return self._run(argv, module, **more)  # type: ignore[arg-type] # see _run

    def _run(
        self,
        argv: Sequence[bytes],
        module: str | None,
        *,
        stdin: bytes = b"",
        envelope: bytes | None = None,
        env: Mapping[str, bytes] | None = None,
        cwd: Path | str = "/",
        is_joined: bool = False,
        uid: int = USER,
    ) -> Ran:
        """Run it as USER.

        `envelope` is what descriptor 1 reads; with `is_joined` descriptors 1 and 2
        are one file.
        """
        variables = {"PATH": b"/usr/bin:/bin", "QSEND_HOME": bytes(self._home)}
        variables |= env or {}
        request = {
            "argv": [word.decode("latin-1") for word in argv],
            "module": module,
            "env": {name: text.decode("latin-1") for name, text in variables.items()},
            "stdin": stdin.decode("latin-1"),
            "one": (envelope or b"").decode("latin-1"),
            "two": "",
            "joined": is_joined,
            "uid": uid,
            "cwd": str(cwd),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        out, err = (answer[name].encode("latin-1") for name in ("out", "err"))
        return Ran(code=answer["code"], out=out, err=b"" if is_joined else err)
