"""maildirmake: create a Maildir.

Exit codes: 0; 100 for wrong usage; 111 when a directory cannot be made.
Source: maildirmake.c; maildirmake(1).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help

_HELP = """\
usage: maildirmake dir

Makes a Maildir for its owner: dir with tmp, new and cur in it. The line ./dir/ in a
.qmail file has mail delivered there.
"""


def main(argv: Sequence[str]) -> int:
    """Make `argv[0]` with tmp, new and cur in it, for the owner alone."""
    if wants_help(argv):
        return teach(_HELP)
    if len(argv) != 1 or not argv[0]:
        sys.stderr.write("maildirmake: usage: maildirmake name\n")
        return 100
    os.umask(0o077)
    for path in (argv[0], *(os.path.join(argv[0], name) for name in _BELOW)):
        try:
            os.mkdir(path, 0o700)
        except OSError as exc:
            sys.stderr.write(
                f"maildirmake: fatal: unable to mkdir {path}: {exc.strerror}\n"
            )
            return 111
    return 0


_BELOW = ("tmp", "new", "cur")
