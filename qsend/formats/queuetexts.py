"""What the exit codes of the qmail-queue interface mean to its callers.

The rule for codes we do not know: 11 to 40 are permanent, all others temporary.
Source: qmail-queue(8), qmail.c qmail_close().
"""

from __future__ import annotations

from qsend.core.model import Letter
from qsend.formats.queueexit import QueueExit

_TEMPORARY = "qq temporary problem (#4.3.0)"
_PERMANENT = "qq permanent problem (#5.3.0)"
_TEXTS: dict[int, str] = {
    -1: "qq crashed (#4.3.0)",
    QueueExit.TOO_LONG: "envelope address too long for qq (#5.1.3)",
    QueueExit.TOO_LONG_OLD: "envelope address too long for qq (#5.1.3)",
    QueueExit.REFUSED: "mail server permanently rejected message (#5.3.0)",
    QueueExit.MEMORY: "qq out of memory (#4.3.0)",
    QueueExit.TIMEOUT: "qq timeout (#4.3.0)",
    QueueExit.WRITE: "qq write error or disk full (#4.3.0)",
    QueueExit.READ: "qq read error (#4.3.0)",
    QueueExit.CONFIG: "qq unable to read configuration (#4.3.0)",
    QueueExit.NETWORK: "qq trouble making network connection (#4.3.0)",
    QueueExit.HOME: "qq trouble in home directory (#4.3.0)",
    QueueExit.QUEUE: "qq trouble creating files in queue (#4.3.0)",
    QueueExit.PID: "qq trouble creating files in queue (#4.3.0)",
    QueueExit.MESS: "qq trouble creating files in queue (#4.3.0)",
    QueueExit.INTD: "qq trouble creating files in queue (#4.3.0)",
    QueueExit.TODO: "qq trouble creating files in queue (#4.3.0)",
    QueueExit.BUSY: "mail server temporarily rejected message (#4.3.0)",
    QueueExit.CONNECT_TIMEOUT: "connection to mail server timed out (#4.4.1)",
    QueueExit.CONNECT_REFUSED: "connection to mail server rejected (#4.4.1)",
    QueueExit.CONNECTION_LOST: "communication with mail server failed (#4.4.2)",
    QueueExit.BUG: "qq internal bug (#4.3.0)",
    QueueExit.FORMAT: "qq internal bug (#4.3.0)",
    QueueExit.EXEC: "unable to exec qq (#4.3.0)",
}
_PERMANENT_CODES = range(11, 41)


def explain(code: int, custom: bytes = b"") -> tuple[Letter, str]:
    """What an exit code of a queueing program means to its caller.

    Args:
        code: 0 to 255; a caller that met a write error of its own passes
            QueueExit.READ for 0; death by a signal is -1.
        custom: what the program wrote to its descriptor 6; used with code 82
            when it says more than two bytes and starts with D or Z.
    Returns: the letter and the text behind it; (SUCCESS, "") for 0.
    """
    if code == QueueExit.QUEUED:
        return Letter.SUCCESS, ""
    if code == QueueExit.CUSTOM and len(custom) > 2 and custom[:1] in (b"D", b"Z"):
        return Letter(custom[:1]), custom[1:].decode("utf-8", "surrogateescape")
    if code in _PERMANENT_CODES or code == QueueExit.TOO_LONG_OLD:
        return Letter.FAILURE, _TEXTS.get(code, _PERMANENT)
    return Letter.DEFERRAL, _TEXTS.get(code, _TEMPORARY)
