"""qmail-qstat: how many messages are queued, and how many not yet preprocessed.

Needs root or group qmail. Exit codes: 0; 111 when the queue cannot be read.
Source: qmail-qstat.sh; qmail-qstat(8). Like qmail's, it counts files, so that
messages being received count as queued.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import TempFail
from qsend.core.model import SPLIT
from qsend.sysio.home import find_home
from qsend.sysio.queuedirs import QueueDirs

_HELP = """\
usage: qmail-qstat

Counts the messages in the queue, and those of them that are not yet preprocessed.
Needs root or group qmail.
"""


def main(argv: Sequence[str]) -> int:
    """Print the two counts on standard output; there are no arguments."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        mess, todo = _counts(f"{find_home(None, os.environ)}/queue")
    except (OSError, TempFail) as exc:
        sys.stderr.write(f"qmail-qstat: fatal: unable to read the queue: {exc}\n")
        return 111
    sys.stdout.write(
        f"messages in queue: {mess}\n"
        f"messages in queue but not yet preprocessed: {todo}\n"
    )
    return 0


def _counts(path: str) -> tuple[int, int]:
    dirs = QueueDirs(path)
    try:
        mess = sum(_count(dirs, f"mess/{part}") for part in range(SPLIT))
        return mess, _count(dirs, "todo")
    finally:
        dirs.close()


def _count(dirs: QueueDirs, name: str) -> int:
    return sum(1 for _ in dirs.names(name))
