"""What sends mail to a peer: our own source, which tells when, and smtp-source."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import BenchError
from bench.letters import SENDER, Letter
from bench.tree import ROOT

SESSIONS = 10
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Sent:
    """When sending began, and when each message was taken; seconds since 1970."""

    began: float
    taken: dict[int, float]

    @property
    def seconds(self) -> float:
        """From the beginning to the last answer."""
        return max(self.taken.values()) - self.began


def send(
    letters: Sequence[Letter],
    port: int,
    *,
    keep: bool,
    protocol: str = "smtp",
    sessions: int = SESSIONS,
    timeout_s: float = 600,
) -> Sent:
    """Send by our own source.

    Raises: BenchError when the server did not take all.
    """
    job = {
        "host": HOST,
        "port": port,
        "protocol": protocol,
        "sessions": sessions,
        "keep": keep,
        "size": letters[0].size,
        "letters": [
            [each.number, [recip.decode() for recip in each.recips]] for each in letters
        ],
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.sourceclient"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"source: {done.stderr.strip()[-400:]}")
    began, *lines = done.stdout.splitlines()
    pairs = (line.split() for line in lines)
    return Sent(float(began), {int(number): float(at) for at, number in pairs})


def smtp_source(
    count: int, recip: str, port: int, *, keep: bool, sessions: int = SESSIONS
) -> list[bytes]:
    """Send by Debian's smtp-source: 2 KiB each, in front of `recip` a number.

    Returns: the recipients. Raises: BenchError.
    """
    program = shutil.which("smtp-source") or "/usr/sbin/smtp-source"
    options = ["-s", str(sessions), "-m", str(count), "-l", "2048", "-N"]
    if keep:
        options.append("-d")
    names = ["-f", SENDER.decode(), "-t", recip, "-M", "source.example"]
    done = subprocess.run(
        [program, *options, *names, f"{HOST}:{port}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise BenchError(f"smtp-source: {done.stderr.strip()[-400:]}")
    return [f"{number}{recip}".encode() for number in range(1, count + 1)]
