"""qmail-tcpto: hosts that did not answer, and destinations that wait therefore.

First the table queue/lock/tcpto, which the classic qmail-remote keeps; then what a
running tree has in memory, where our own remote processes keep it: destinations, of
which no host could be reached. Only root and qmails may ask the tree; others see the
table. Exit codes: 0; 111 with a line on standard output when the table cannot be
read, or on standard error when the tree does not answer.
Source: qmail-tcpto.c; qmail-tcpto(8). The part about the tree is ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import PermFail, QsendError, TempFail
from qsend.formats.tcptofile import Record
from qsend.sysio import clock
from qsend.sysio.controlclient import ControlClient, NotRunning
from qsend.sysio.home import find_home
from qsend.sysio.tcptotable import read_all

_HELP = """\
usage: qmail-tcpto

Prints which hosts timed out lately (two timeouts, and a host is left alone for an
hour or more). With qsend start, also each destination that could not be reached:

  192.0.2.1 timed out 90 seconds ago; # recent timeouts: 2
  down.example could not be reached; next attempt in 3600 seconds; # waiting: 4

qmail-tcpok forgets them all. Needs root; qmailr sees the first kind only.
"""


def main(argv: Sequence[str]) -> int:
    """Print both lists; arguments are ignored, as qmail-tcpto does."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        home = find_home(None, os.environ)
        records = read_all(f"{home}/queue/lock/tcpto")
    except (OSError, TempFail) as exc:
        words = exc.strerror if isinstance(exc, OSError) else str(exc)
        sys.stdout.write(f"fatal: unable to open tcpto: {words}\n")
        return 111
    now = clock.now()
    for record in records:
        if record.silence.count:
            sys.stdout.write(_line(record, now))
    try:
        sys.stdout.writelines(_tree_lines(home))
    except (NotRunning, PermFail):
        pass  # nothing more to tell, or not to this caller
    except QsendError as exc:
        sys.stderr.write(f"qmail-tcpto: {exc}\n")
        return 111
    return 0


def _line(record: Record, now: int) -> str:
    # A record of the future is one from before the clock was set back.
    ago = max(0, now - record.silence.last)
    return (
        f"{record.address} timed out {ago} seconds ago; "
        f"# recent timeouts: {record.silence.count}\n"
    )


def _tree_lines(home: str) -> Iterator[str]:
    client = ControlClient(home)
    try:
        ill = client.ask_one("status").facts.get("ill")
    finally:
        client.close()
    for each in ill if isinstance(ill, list) else []:
        if isinstance(each, dict):
            yield (
                f"{_shown(each.get('destination'))} could not be reached; next attempt "
                f"in {each.get('ill_for_s')} seconds; "
                f"# waiting: {each.get('waiting')}\n"
            )


def _shown(name: object) -> str:
    return "".join(each if "!" <= each <= "~" else "?" for each in str(name))
