"""bouncesaying: bounce a message with some words, perhaps only if a program says so.

Exit codes: 100 bounce, the words are on descriptor 2; 0 go on; 111.
Source: bouncesaying(1), bouncesaying.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.condition import holds
from qsend.cli.options import UsageError

_HELP = """\
usage: bouncesaying error [ program [ arg ... ] ]

In a .qmail file, `|bouncesaying 'This list is closed.'` bounces every message with
these words; with a program, which reads the message, only if it exits 0. If it exits
111 the delivery is tried again later; with any other code the next line follows.
"""


def main(argv: Sequence[str]) -> int:
    """`argv` is the words and perhaps the program with its arguments."""
    return outcome.run("bouncesaying", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    if not argv:
        raise UsageError
    if len(argv) > 1 and not holds(argv[1:]):
        return 0
    outcome.say(argv[0])
    return outcome.PERMANENT
