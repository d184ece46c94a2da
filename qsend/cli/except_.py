"""except: the contrary of what a program says.

Exit codes: 100 when the program exits 0; 111 when it exits 111 or crashes; else 0.
Source: except(1), except.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.condition import holds
from qsend.cli.options import UsageError

_HELP = """\
usage: except program [ arg ... ]

Turns a program's exit code round: 0 becomes 100, 111 stays, all others become 0.
In a .qmail file, `|bouncesaying 'No invoice.' except grep -q invoice` bounces what
has no such word.
"""


def main(argv: Sequence[str]) -> int:
    """`argv` is the program with its arguments."""
    return outcome.run("except", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    if not argv:
        raise UsageError
    return outcome.PERMANENT if holds(argv) else 0
