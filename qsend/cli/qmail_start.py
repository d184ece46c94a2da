"""qmail-start: the mail system as qmail's boot scripts start it, in the foreground.

`qmail-start [defaultdelivery [logger arg...]]`: the tree of `qsend start` with that
default delivery. The log goes to descriptor 1, or through a pipe to the logger, which
runs as qmaill, group nofiles, with that pipe as descriptor 0, our 1 as 1, and nothing
else; it is found by PATH. Signals to this process: TERM ends, HUP rereads the
controls, ALRM tries everything now. Exit codes: 0 after TERM, 111 otherwise.
Source: qmail-start(8), qmail-start.c. Unlike qmail's, it says why it cannot start, and
runs as an ordinary user in single-user mode.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.cli.start import run
from qsend.core.errors import QsendError
from qsend.core.startoptions import StartOptions
from qsend.sysio.home import find_home
from qsend.sysio.logger import start_logger

_HELP = """\
usage: qmail-start [ defaultdelivery [ logger arg ... ] ]

Runs the mail system in the foreground, as `qsend start` does. defaultdelivery
(default ./Mailbox) is what a missing or empty .qmail file means; it may have several
lines. The log goes to standard output, or to the standard input of a logger that runs
as qmaill:

  env - PATH="/var/qmail/bin:$PATH" qmail-start ./Maildir/ multilog t ./main

TERM ends it, HUP rereads the control files, ALRM tries all mail now.
"""
_DEFAULT_DELIVERY = "./Mailbox"


def main(argv: Sequence[str]) -> int:
    """Run until stopped."""
    if wants_help(argv):
        return teach(_HELP)
    is_root = os.getuid() == 0
    try:
        options = StartOptions(
            home=os.path.abspath(find_home(None, os.environ)),
            single_user=not is_root,
            default_delivery=os.fsencode(argv[0] if argv else _DEFAULT_DELIVERY),
        )
        if argv[1:]:
            start_logger(argv[1:], single_user=not is_root)
    except QsendError as exc:
        sys.stderr.write(f"qmail-start: fatal: {exc}\n")
        return 111
    return 111 if run(options) else 0
