"""preline: give a program the message with the lines that mailbox programs want.

Exit codes: those of the program; 111 when it crashes or cannot be run now; 100
when it never can, or the lines are not known.
Source: preline(1), preline.c. Unlike it, a program that leaves part of the message
unread has its own exit code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from qsend.cli import outcome
from qsend.cli.options import CommandLine, UsageError
from qsend.core.errors import PermFail, TempFail
from qsend.sysio import stdin
from qsend.sysio.childprogram import NotStarted, run_fed

_HELP = """\
usage: preline [ -frdFRD ] command [ arg ... ]

In a .qmail file, `|preline procmail` feeds the program the mailbox line `From `, a
Return-Path and a Delivered-To line ($UFLINE, $RPLINE, $DTLINE), then the message.
-f leaves out the From line, -r Return-Path, -d Delivered-To; -F, -R, -D put them
back. The exit code is the program's, which qmail-command(8) explains.
"""
_LINES = {"f": b"UFLINE", "r": b"RPLINE", "d": b"DTLINE"}


def main(argv: Sequence[str]) -> int:
    """Run the program named in `argv`."""
    return outcome.run("preline", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    if not os.environb.keys() >= set(_LINES.values()):
        raise UsageError
    line = CommandLine(argv, "frdFRD", "")
    wanted = dict.fromkeys(_LINES, True)
    for letter, _ in line.options():
        wanted[letter.lower()] = letter.isupper()
    if not line.arguments:
        raise UsageError

    def content() -> Iterator[bytes]:
        yield b"".join(
            os.environb[_LINES[key]] for key, is_wanted in wanted.items() if is_wanted
        )
        yield from stdin.pieces()

    try:
        return run_fed(line.arguments, content())
    except NotStarted as exc:
        raise (TempFail if exc.is_temporary else PermFail)(str(exc)) from exc
