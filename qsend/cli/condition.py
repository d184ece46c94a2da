"""Programs whose exit code is a condition for what happens to a message.

Source: condredirect.c, bouncesaying.c, except.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from qsend.core.errors import TempFail
from qsend.sysio.childprogram import NotStarted, run

_TEMPORARY = 111


def holds(argv: Sequence[str]) -> bool:
    """Whether the program, reading the message, exits 0.

    One that cannot be found or run at all says no, as in qmail.
    Raises: TempFail when it exits 111 or crashes, or cannot be run for now.
    """
    try:
        code = run(argv)
    except NotStarted as exc:
        if exc.is_temporary:
            raise TempFail(str(exc)) from exc
        return False
    if code == _TEMPORARY:
        raise TempFail("temporary child error")
    return code == 0
