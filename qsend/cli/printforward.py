"""printforward: the instructions of a forwarding table, as setforward reads them.

Exit codes: 0; 100 when standard input is no such table; 111.
Source: printforward(1), printforward.c.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.core.errors import TempFail
from qsend.formats.forwardtable import read_records, render_record

_HELP = """\
usage: printforward

Prints the forwarding table on standard input, for example </etc/aliases.cdb, in the
format that setforward reads.
"""


def main(argv: Sequence[str]) -> int:
    """Arguments are ignored, as printforward does."""
    return outcome.run("printforward", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    del argv
    try:
        for key, value in read_records(sys.stdin.buffer.read):
            sys.stdout.buffer.write(render_record(key, value))
        sys.stdout.flush()
    except OSError as exc:
        raise TempFail(f"unable to print: {exc.strerror}") from exc
    return 0
