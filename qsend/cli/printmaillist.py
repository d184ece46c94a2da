"""printmaillist: the lines of a list that setmaillist or newinclude made.

Exit codes: 0; 100 when standard input is no such list; 111.
Source: printmaillist(1), printmaillist.c.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.core.errors import TempFail
from qsend.formats.maillist import LIST_MAX, render_lines
from qsend.sysio import stdin

_HELP = """\
usage: printmaillist

Prints the binary list on standard input, for example </etc/lists/sos.bin, one address
or path to a line, as setmaillist reads them.
"""


def main(argv: Sequence[str]) -> int:
    """Arguments are ignored, as printmaillist does."""
    return outcome.run("printmaillist", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    del argv
    try:
        sys.stdout.buffer.writelines(render_lines(stdin.read_whole(LIST_MAX)))
        sys.stdout.flush()
    except OSError as exc:
        raise TempFail(f"unable to print: {exc.strerror}") from exc
    return 0
