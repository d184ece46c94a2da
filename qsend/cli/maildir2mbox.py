"""maildir2mbox: move mail from a maildir to an mbox file.

Exit codes: 0; 111 with nothing moved. Environment: MAILDIR, MAIL, MAILTMP.
Source: maildir2mbox(1), maildir2mbox.c; see sysio/maildirmbox for what differs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.core.errors import TempFail
from qsend.sysio.maildirmbox import move_messages

_HELP = """\
usage: maildir2mbox

Moves all messages of $MAILDIR to the end of the mbox file $MAIL, which is locked and
replaced at once by way of $MAILTMP, a name on the same file system. Exit codes: 0;
111 when nothing could be moved.
"""


def main(argv: Sequence[str]) -> int:
    """Arguments are ignored, as maildir2mbox does."""
    return outcome.run("maildir2mbox", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    del argv
    mbox, tmp, maildir = (_variable(name) for name in ("MAIL", "MAILTMP", "MAILDIR"))
    for path in move_messages(maildir, mbox, tmp):
        outcome.say(
            f"maildir2mbox: warning: $MAILDIR/{path} will be delivered twice;"
            " unable to unlink"
        )
    return 0


def _variable(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise TempFail(f"{name} not set") from None
