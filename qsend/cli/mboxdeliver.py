"""mboxdeliver: append a message to an mbox file, as a dot-qmail line `./file` does.

Exit codes: 0; 100 usage; 111. Not one of qmail's programs: newaliases uses it for
the file deliveries that /etc/aliases may ask for.
Source: mbox(5); dot-qmail(5).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.delivery import variable
from qsend.cli.options import UsageError
from qsend.formats.control import Durability
from qsend.sysio.mbox import Mboxes
from qsend.sysio.messagefile import MessageFile

_HELP = """\
usage: mboxdeliver file

Appends the message on standard input, which must be a file, to the mbox file, with
$UFLINE, $RPLINE and $DTLINE before it: locked, `From ` quoted, synced. The file is
made if there is none; one that belongs to somebody else is left alone (exit 111).
"""


def main(argv: Sequence[str]) -> int:
    """`argv[0]` is the mbox file."""
    return outcome.run("mboxdeliver", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    if len(argv) != 1:
        raise UsageError
    prefix = b"".join(variable(name) for name in ("UFLINE", "RPLINE", "DTLINE"))
    home_fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    Mboxes(Durability.FULL).deliver(
        home_fd, os.fsencode(argv[0]), prefix, MessageFile(0), owner=os.geteuid()
    )
    return 0
