"""Programs of both sides that queue a message, and what they queued."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.interop.pair import Pair

QUEUE_PROGRAM = """#!/bin/sh
cat >"$QUEUED/message"
cat <&1 >"$QUEUED/envelope"
exit ${QUEUE_CODE:-0}
"""


@dataclass(frozen=True)
class Case:
    """One injection."""

    args: tuple[str, ...]
    stdin: str
    variables: tuple[tuple[str, str], ...] = field(default=())
    queue_code: int = 0


def masked(text: bytes) -> bytes:
    """Without the time and the numbers of this run."""
    text = re.sub(rb"(?m)^((?:Resent-)?Date: )\d+ \w+ \d+ [\d:]+ -0000$", rb"\1", text)
    text = re.sub(rb"<\d{14}\.\d+(?:\.[0-9a-f]{12})?\.qmail@", b"<ID@", text)
    # The sender of QMAILINJECT=m.
    return re.sub(rb"-1\d{9}\.\d+", b"-TIME.PID", text)


def inject(
    pair: Pair, shared: Path, is_ours: bool, programs: Sequence[str], case: Case
) -> tuple[int, list[bytes]]:
    """Exit code, output, message and envelope of one injection."""
    theirs, ours = programs
    queued = shared / "queued"
    queued.mkdir(mode=0o777)
    queued.chmod(0o777)
    run = pair.ours if is_ours else pair.theirs
    ran = run(
        ours if is_ours else theirs,
        [word.encode("latin-1") for word in case.args],
        stdin=case.stdin.encode("latin-1"),
        envelope=b"",
        env={
            "QMAILQUEUE": bytes(shared / "queue-program"),
            "QUEUED": bytes(queued),
            "QUEUE_CODE": b"%d" % case.queue_code,
            **{name: value.encode("latin-1") for name, value in case.variables},
        },
        cwd=shared,
    )
    found = [
        path.read_bytes() if path.exists() else b"none"
        for path in (queued / "message", queued / "envelope")
    ]
    shutil.rmtree(queued)
    # A program that fails later has begun to queue; nobody sees what.
    if ran.code:
        found = []
    return ran.code, [masked(each) for each in (ran.out, *found)]


@pytest.fixture(scope="module")
def ground(pair: Pair, shared: Path) -> Path:
    """The home's controls, a list of lists, and a program that takes mail."""
    path = shared / "queue-program"
    path.write_text(QUEUE_PROGRAM)
    path.chmod(0o755)
    (shared / "lists").write_text("joe@h.d\na@b.here.example\n# x\nX@H.D\n")
    return shared
