"""qmail-tcpok: forget which hosts did not answer.

Clears the table queue/lock/tcpto of the classic qmail-remote, and has a running tree
forget its own. Makes nothing due: qmail-tcpok, then ALRM, tries all mail now. Exit
codes: 0; 111 with a line on standard error.
Source: qmail-tcpok.c; qmail-tcpok(8). The part about the tree is ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import PermFail, QsendError
from qsend.sysio.controlclient import ControlClient, NotRunning
from qsend.sysio.home import find_home
from qsend.sysio.tcptotable import free_all

_HELP = """\
usage: qmail-tcpok

Forgets which hosts timed out (qmail-tcpto prints them), so that the next attempt
connects to them again. It makes nothing due; `qsend flush` does, or ALRM.
Needs root; qmailr clears the table of the classic qmail-remote only.
"""


def main(argv: Sequence[str]) -> int:
    """Forget them; arguments are ignored, as qmail-tcpok does."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        home = find_home(None, os.environ)
        free_all(f"{home}/queue/lock/tcpto")
        _tell_tree(home)
    except OSError as exc:
        return _die(f"unable to clear {exc.filename}: {exc.strerror}")
    except QsendError as exc:
        return _die(str(exc))
    return 0


def _tell_tree(home: str) -> None:
    try:
        client = ControlClient(home)
    except (NotRunning, PermFail):
        return  # there is none, or the caller may only clear the table
    try:
        client.ask_one("cure")
    finally:
        client.close()


def _die(problem: str) -> int:
    sys.stderr.write(f"qmail-tcpok: fatal: {problem}\n")
    return 111
