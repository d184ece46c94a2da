"""qmail-rspawn: the classic remote spawner, one qmail-remote per delivery.

Runs `$QMAILREMOTE`, or bin/qmail-remote of the home, as `qmail-remote host sender
recipient` with the message on descriptor 0. Exit codes: 0 after the end of the
commands and of the last delivery, 111 when the queue is not there.
Source: qmail-rspawn.c, spawn.c. Unlike qmail's, a qmail-remote that cannot
be run defers the mail and does not bounce it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import ConfigError, TempFail
from qsend.core.model import Letter
from qsend.core.remotereport import judge
from qsend.formats.classic import SLOTS_DEFAULT, SLOTS_MAX
from qsend.formats.control import parse_controls
from qsend.sysio import tcptotable
from qsend.sysio.classicspawner import Job, serve
from qsend.sysio.home import find_home, read_control
from qsend.sysio.stderr import ensure_stderr

_HELP = """\
usage: qmail-rspawn

Runs qmail-remote (or $QMAILREMOTE) for each delivery that a classic qmail-send asks for
on descriptor 0, and reports on descriptor 1. qmail-start of qmail starts it; so does
`qsend start --rspawn`.
"""


class RemoteHooks:
    """Starts qmail-remote and reads its output."""

    def __init__(self, program: str) -> None:
        """`program` is a path, or a name to be found in PATH."""
        self._program = program

    def start(self, job: Job, message: int, output: int) -> int:
        """Start it for one recipient. Raises: TempFail when it cannot be run."""
        host = job.recip[job.at + 1 :]
        argv: list[bytes | str] = [self._program, host, job.sender, job.recip]
        try:
            return os.posix_spawnp(
                self._program,
                argv,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, message, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ],
                # Python ignores these, and an exec would hand that on.
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError as exc:
            raise TempFail(
                f"Unable to run qmail-remote: {exc.strerror}. (#4.3.0)"
            ) from exc

    def report(self, status: int, output: bytes) -> tuple[Letter, bytes]:
        """See `judge`."""
        return judge(status, output)


def slots(home: str) -> int:
    """How many deliveries to take at once: concurrencyremote, from 120 to 255.

    qmail fixes the number at build time; send takes the smaller of its own and
    this one, so the classic 120 stays the least. An unusable control counts as
    absent: send says what is wrong with it.
    """
    try:
        content = read_control(home, "concurrencyremote")
        files = {"locals": b"", "concurrencyremote": content or b"20"}
        wanted = parse_controls(files).concurrencyremote
    except (ConfigError, TempFail):
        return SLOTS_DEFAULT
    return max(SLOTS_DEFAULT, min(SLOTS_MAX, wanted))


def main(argv: Sequence[str]) -> int:
    """Serve the send on descriptors 0 and 1; arguments are ignored, as qmail does."""
    if wants_help(argv):
        return teach(_HELP)
    del argv
    ensure_stderr()
    try:
        home = os.path.abspath(find_home(None, os.environ))
        os.chdir(f"{home}/queue/mess")
    except (OSError, TempFail) as exc:
        sys.stderr.write(f"qmail-rspawn: fatal: unable to enter the queue: {exc}\n")
        return 111
    tcptotable.clear(f"{home}/queue/lock/tcpto")
    program = os.environ.get("QMAILREMOTE") or f"{home}/bin/qmail-remote"
    return serve(RemoteHooks(program), limit=slots(home))
