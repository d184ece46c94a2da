"""mailsubj: mail standard input with a subject.

Exit codes: those of qmail-inject; 111 when it cannot be run; 100 usage.
Source: mailsubj(1), mailsubj.sh. Unlike it, line breaks in an argument become
blanks, so that no argument is more than a part of its field.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from qsend.cli import outcome
from qsend.cli.options import UsageError
from qsend.core.errors import TempFail
from qsend.sysio import stdin
from qsend.sysio.childprogram import NotStarted, run_fed
from qsend.sysio.home import find_home

_HELP = """\
usage: mailsubj subject [ recipient ... ]

Sends standard input as the body of a message with that subject to the recipients,
by qmail-inject, whose exit codes it has: 0 queued, 100 wrong, 111 to try later.
"""
_BREAKS = str.maketrans("\r\n", "  ")


def main(argv: Sequence[str]) -> int:
    """`argv` is the subject and the recipients."""
    return outcome.run("mailsubj", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    if not argv:
        raise UsageError
    subject, *recips = (os.fsencode(word.translate(_BREAKS)) for word in argv)

    def content() -> Iterator[bytes]:
        yield b"Subject: %b\nTo: %b\n\n" % (subject, b" ".join(recips))
        yield from stdin.pieces()

    try:
        return run_fed([f"{find_home(None, os.environ)}/bin/qmail-inject"], content())
    except NotStarted as exc:
        raise TempFail(str(exc)) from exc
