"""Exit codes of the qmail-queue interface, and what they mean to its callers.

The rule for codes we do not know: 11 to 40 are permanent, all others temporary.
Source: qmail-queue(8), qmail.c qmail_close(); queue_layout.md.
"""

from __future__ import annotations

from enum import IntEnum

from qsend.core.model import Letter


class QueueExit(IntEnum):
    """The codes our own qmail-queue gives, and those others may give."""

    QUEUED = 0
    TOO_LONG = 11
    REFUSED = 31
    MEMORY = 51
    TIMEOUT = 52
    WRITE = 53
    READ = 54
    CONFIG = 55
    NETWORK = 56
    HOME = 61
    QUEUE = 62
    PID = 63
    MESS = 64
    INTD = 65
    TODO = 66
    BUSY = 71
    CONNECT_TIMEOUT = 72
    CONNECT_REFUSED = 73
    CONNECTION_LOST = 74
    BUG = 81
    CUSTOM = 82
    FORMAT = 91
    ACCOUNTS = 111
    TOO_LONG_OLD = 115
    EXEC = 120


_TEMPORARY = "trouble queueing the message (#4.3.0)"
_PERMANENT = "the message cannot be queued (#5.3.0)"
_TEXTS: dict[int, str] = {
    QueueExit.TOO_LONG: "an envelope address is too long (#5.1.3)",
    QueueExit.TOO_LONG_OLD: "an envelope address is too long (#5.1.3)",
    QueueExit.REFUSED: "the mail server refuses this message (#5.3.0)",
    QueueExit.MEMORY: "out of memory while queueing (#4.3.0)",
    QueueExit.TIMEOUT: "queueing took too long (#4.3.0)",
    QueueExit.WRITE: "write error or disk full while queueing (#4.3.0)",
    QueueExit.READ: "read error while queueing (#4.3.0)",
    QueueExit.CONFIG: "unable to read the queueing configuration (#4.3.0)",
    QueueExit.NETWORK: "unable to open a network connection (#4.3.0)",
    QueueExit.HOME: "trouble with the home directory (#4.3.0)",
    QueueExit.QUEUE: "trouble with the queue directory (#4.3.0)",
    QueueExit.PID: "trouble creating files in the queue (#4.3.0)",
    QueueExit.MESS: "trouble creating files in the queue (#4.3.0)",
    QueueExit.INTD: "trouble creating files in the queue (#4.3.0)",
    QueueExit.TODO: "trouble creating files in the queue (#4.3.0)",
    QueueExit.BUSY: "the mail server refuses messages for now (#4.3.0)",
    QueueExit.CONNECT_TIMEOUT: "connecting to the mail server timed out (#4.4.1)",
    QueueExit.CONNECT_REFUSED: "the mail server refused the connection (#4.4.1)",
    QueueExit.CONNECTION_LOST: "the connection to the mail server broke (#4.4.2)",
    QueueExit.BUG: "internal bug while queueing (#4.3.0)",
    QueueExit.FORMAT: "internal bug while queueing (#4.3.0)",
    QueueExit.EXEC: "unable to run the queueing program (#4.3.0)",
}
_PERMANENT_CODES = range(11, 41)


def explain(code: int, custom: bytes = b"") -> tuple[Letter, str]:
    """What an exit code of a queueing program means to its caller.

    Args:
        code: 0 to 255; a caller that met a write error of its own passes
            QueueExit.READ for 0; death by a signal is any temporary code (-1).
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
