"""predate: run a program with a Date field in the local time zone added.

Exit codes: those of the program; 111 when it crashes or cannot be run; 100 usage.
Source: predate(1), predate.c. Unlike it, a program that leaves part of
the message unread has its own exit code.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from qsend.cli import outcome
from qsend.cli.options import UsageError
from qsend.core.errors import TempFail
from qsend.sysio import clock, stdin
from qsend.sysio.childprogram import NotStarted, run_fed

_HELP = """\
usage: predate child [ arg ... ]

Runs the child with the message on standard input, a Date field put in front: the
local time with its zone, where qmail-inject by itself would say it in -0000. The
exit code is the child's; 111 when it cannot be run.
"""


def main(argv: Sequence[str]) -> int:
    """`argv` is the program with its arguments."""
    return outcome.run("predate", _HELP, run, argv)


def run(argv: Sequence[str]) -> int:
    """Run the program in `argv`; its exit code.

    Raises: UsageError without one; TempFail when it cannot be run or crashes.
    """
    if not argv:
        raise UsageError

    def content() -> Iterator[bytes]:
        yield date_field(time.localtime(clock.now()))
        yield from stdin.pieces()

    try:
        return run_fed(argv, content())
    except NotStarted as exc:
        raise TempFail(str(exc)) from exc


def date_field(now: time.struct_time) -> bytes:
    """The field with its LF, as `Date: 5 Jan 2026 07:08:09 +0100`."""
    offset = now.tm_gmtoff
    hours, minutes = divmod((abs(offset) + 30) // 60, 60)
    sign = "-" if offset < 0 else "+"
    # Python leaves LC_TIME alone: the month is English.
    local = time.strftime("%b %Y %H:%M:%S", now)
    return f"Date: {now.tm_mday} {local} {sign}{hours:02}{minutes:02}\n".encode()
