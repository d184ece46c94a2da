"""condredirect: send a message elsewhere if a program says so.

Exit codes: 99 redirected, and nothing more is to be done; 0 go on with the next
line; 111; 100 wrong usage, or the queue refused it for good.
Source: condredirect(1), condredirect.c.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.condition import holds
from qsend.cli.delivery import forward, variable
from qsend.cli.options import UsageError
from qsend.sysio import stdin

_HELP = """\
usage: condredirect newaddress program [ arg ... ]

In a .qmail file, `|condredirect junk@here.example grep -q viagra` sends the message
to newaddress, from its own sender, if the program, which reads it, exits 0; the
lines that follow are then skipped (exit code 99). If it exits 111 the delivery is
tried again later; with any other code the next line has its turn.
"""


def main(argv: Sequence[str]) -> int:
    """`argv` is the new address and the program with its arguments."""
    return outcome.run("condredirect", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    if len(argv) < 2:
        raise UsageError
    if not holds(argv[1:]):
        return 0
    stdin.rewind()
    sender = variable("SENDER")
    qp = forward(variable("DTLINE"), sender, [os.fsencode(argv[0])])
    outcome.say(f"condredirect: qp {qp}")
    return 99
