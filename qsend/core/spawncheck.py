"""What a spawner refuses before it starts anything, and how it says so.

The letters and codes are qmail's; the sentences are ours, each ending in LF.
Source: spawn.c docmd(), qmail-lspawn.c report(); spawn.c.
"""

from __future__ import annotations

from qsend.core.model import Letter

PATH_MAX = 99
"""Longest path of a message below mess/: 100 bytes with its NUL (spawn.c)."""

_PATH_BYTES = frozenset(b"0123456789/")

Answer = tuple[Letter, bytes]
"""A report's letter and text."""

BAD_DELNUM: Answer = (Letter.DEFERRAL, b"The spawner cannot take more work. (#4.3.5)\n")
BAD_PATH: Answer = (Letter.FAILURE, b"The message has no proper file name. (#5.3.5)\n")
NO_DOMAIN: Answer = (Letter.FAILURE, b"The recipient has no @ in it. (#5.1.3)\n")
TOO_LONG: Answer = (Letter.FAILURE, b"The recipient's name is too long. (#5.1.3)\n")
CANNOT_OPEN: Answer = (Letter.DEFERRAL, b"Unable to open the message file. (#4.3.0)\n")
WRONG_FILE: Answer = (
    Letter.DEFERRAL,
    b"The message file is not the queue's own. (#4.3.5)\n",
)
CANNOT_FORK: Answer = (
    Letter.DEFERRAL,
    b"Unable to start a process for this delivery. (#4.3.0)\n",
)
CRASHED: Answer = (Letter.DEFERRAL, b"The delivery process crashed. (#4.3.0)\n")
INTERNAL: Answer = (
    Letter.DEFERRAL,
    b"Unable to become the user of this mailbox. (#4.3.0)\n",
)
REFUSED: Answer = (
    Letter.DEFERRAL,
    b"Mail may not be delivered as this user. (#4.3.5)\n",
)
NO_ALIAS: Answer = (Letter.DEFERRAL, b"Unable to find the alias user. (#4.3.5)\n")


def refuse(path: bytes, recip: bytes) -> Answer | None:
    """The report for a command that is wrong in itself, or None when it is fine.

    `path` names the message below mess/; `recip` is the address, both without NUL.
    """
    # An empty path has no first digit, so one answer covers both.
    if not path[:1].isdigit() or not _PATH_BYTES.issuperset(path):
        return BAD_PATH
    if len(path) > PATH_MAX:
        return BAD_PATH
    if b"@" not in recip:
        return NO_DOMAIN
    return None


def lookup_trouble(text: bytes) -> Answer:
    """The deferral when it cannot be found out whose mail it is; `text` says why."""
    return Letter.DEFERRAL, b"%b. (#4.3.0)\n" % text.replace(b"\n", b" ")[:500]
