"""forward: send the message of a dot-qmail line on to some addresses.

Exit codes: 0 queued; 100 not from a dot-qmail line, or refused for good; 111.
Source: forward(1), forward.c.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.delivery import forward, variable

_HELP = """\
usage: forward address ...

In a .qmail file, `|forward me@elsewhere.example` sends each message on, with a
Delivered-To line, from $NEWSENDER. Unlike a line `&me@elsewhere.example`, it can be
the last word of a condition: `|grep -q invoice && forward billing`. Exit codes: 0;
100 when refused for good or NEWSENDER or DTLINE is not set; 111 to try later.
"""


def main(argv: Sequence[str]) -> int:
    """Queue standard input for the addresses in `argv`."""
    return outcome.run("forward", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    sender = variable("NEWSENDER")
    qp = forward(variable("DTLINE"), sender, [os.fsencode(word) for word in argv])
    outcome.say(f"forward: qp {qp}")
    return 0
