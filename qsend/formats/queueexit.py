"""Exit codes of the qmail-queue interface; queuetexts says what they mean.

Source: qmail-queue(8), qmail.c qmail_close(); queue_layout.md.
"""

from __future__ import annotations

from qsend.core.light import IntEnum


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
