"""The classic qmail-lspawn's report: from how its child ended and what it wrote.

Source: qmail-lspawn.c report(), qlx.h; spawn.c.
"""

from __future__ import annotations

from enum import IntEnum

from qsend.core import spawncheck
from qsend.core.model import Letter
from qsend.core.spawncheck import Answer


class Exit(IntEnum):
    """Exit codes of the child that say what lspawn's side could not do."""

    DEFER = 111
    NOT_DROPPED = 112
    REFUSED = 113
    NFS = 115
    NO_ALIAS = 116
    USERS_CDB = 117
    SYSTEM = 118
    MEMORY = 119
    NOT_RUN = 120
    NO_LOOKUP = 121
    NOT_RUN_HARD = 126


def _defer(text: str) -> Answer:
    return Letter.DEFERRAL, f"{text} (#4.3.0)\n".encode()


_FIXED: dict[int, Answer] = {
    Exit.NOT_DROPPED: spawncheck.INTERNAL,
    Exit.REFUSED: spawncheck.REFUSED,
    Exit.NFS: _defer("The user's home is on a file server that fails."),
    Exit.NO_ALIAS: spawncheck.NO_ALIAS,
    Exit.USERS_CDB: _defer("Unable to read users/cdb."),
    Exit.SYSTEM: _defer("The system failed in the local spawner."),
    Exit.MEMORY: _defer("Out of memory in the local spawner."),
    Exit.NOT_RUN: _defer("Unable to run qmail-local."),
    Exit.NO_LOOKUP: _defer("Unable to run the user lookup."),
    # A failure in qmail; but who installs programs anew makes one for a moment.
    Exit.NOT_RUN_HARD: _defer("Unable to run qmail-local."),
}
_DEFERRALS = frozenset({Exit.DEFER, 71, 74, 75})
"""qmail-local's own, and sysexits.h EX_OSERR, EX_IOERR, EX_TEMPFAIL."""


def judge(status: int, output: bytes) -> Answer:
    """Letter and text for a child that is dead.

    `status` is its exit code, or minus the signal that killed it. The text is the
    output up to the first NUL, unless the status alone says it all.
    """
    if status < 0:
        return spawncheck.CRASHED
    if status in _FIXED:
        return _FIXED[status]
    text = output.partition(b"\0")[0]
    if status == 0:
        return Letter.SUCCESS, text
    return (Letter.DEFERRAL if status in _DEFERRALS else Letter.FAILURE), text
