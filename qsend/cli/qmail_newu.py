"""qmail-newu: make users/cdb of users/assign.

Exit codes: 0; 111 with a line on standard error, and the old users/cdb as it was.
Source: qmail-newu.c; qmail-newu(8). Unlike qmail's, the new name is durable when it
ends, two runs take turns, and the line that is wrong is named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import ConfigError, QsendError
from qsend.formats.assign import LINE_MAX, parse_assign
from qsend.sysio.cdbmaker import make_cdb
from qsend.sysio.home import find_home

_HELP = """\
usage: qmail-newu

Makes users/cdb, by which qsend finds whose mail a local part is, of the text file
users/assign. Its lines, and a dot at the end:

  =local:user:uid:gid:home:dash:ext:    mail for local, by ~home/.qmail<dash><ext>
  +pre:user:uid:gid:home:dash:ext:      mail for every local part starting with pre;
                                        what follows pre is added to ext
  .

The change is in force at once. If anything is wrong, users/cdb stays as it is and
the exit code is 111. qmail-pw2u writes users/assign from the password file.
"""


def main(argv: Sequence[str]) -> int:
    """Make it; arguments are ignored, as qmail-newu does."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        _make(f"{find_home(None, os.environ)}/users")
    except ConfigError as exc:
        return _die(f"bad format in {exc.faults[0]}")
    except OSError as exc:
        return _die(f"{exc.filename or 'users/cdb.tmp'}: {exc.strerror}")
    except QsendError as exc:
        return _die(str(exc))
    return 0


def _make(users: str) -> None:
    make_cdb(f"{users}/cdb", f"{users}/cdb.tmp", _records(f"{users}/assign"))


def _records(path: str) -> Iterator[tuple[bytes, bytes]]:
    """Opens the file when first asked: by then no other run is under way."""
    with open(path, "rb") as file:
        # One byte more than a line may have, so that a longer one is seen as such.
        lines = iter(lambda: file.readline(LINE_MAX + 1), b"")
        yield from parse_assign(lines)


def _die(problem: str) -> int:
    sys.stderr.write(f"qmail-newu: fatal: {problem}\n")
    return 111
