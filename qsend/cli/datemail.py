"""datemail: sendmail, with a Date field in the local time zone added.

Exit codes: those of sendmail; 111 when it cannot be run.
Source: datemail(1), datemail.sh.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli import outcome, predate
from qsend.sysio.home import find_home

_HELP = """\
usage: datemail [ arg ... ]

Runs sendmail with the same arguments and the message on standard input, a Date
field put in front: the local time with its zone. For mail programs that write none.
"""


def main(argv: Sequence[str]) -> int:
    """`argv` is for sendmail."""
    return outcome.run("datemail", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    return predate.run([f"{find_home(None, os.environ)}/bin/sendmail", *argv])
