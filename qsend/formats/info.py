"""info/N: who sent a message; the file's mtime is its birth.

The first record is `F<sender>NUL`. A real qmail-send reads no further (its own has
every F of the envelope there), so that what else must be known of recipients can
follow: `O<offset> <address>NUL` is the address that a bounce shows for the record
at that offset of local/N, `U<offset> <address>NUL` the same for a recipient that
does not exist.
Source: qmail-send.c getinfo(), todo_do(); queue_layout.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from qsend.core.errors import QueueCorrupt
from qsend.core.message import NO_NOTES, Note

INFO_MAX = 128 << 20
"""Longest info file read: notes on as many recipients as an envelope may have."""

_NOTE = re.compile(rb"(?<=\0)([OU])([0-9]{1,10}) ([^\0]*)\0")


def render_info(sender: bytes, notes: Mapping[int, Note] = NO_NOTES) -> bytes:
    """The content of info/N; `sender` may be empty and has no NUL.

    `notes` are by the offset of the recipient's record in local/N.
    """
    return (
        b"F"
        + sender
        + b"\0"
        + b"".join(
            b"%b%d %b\0" % (b"U" if note.is_unknown else b"O", offset, note.original)
            for offset, note in notes.items()
        )
    )


def parse_info(content: bytes) -> bytes:
    """The sender; b"" for the null sender.

    Raises: QueueCorrupt when the first record is cut short or not an F record.
    """
    end = content.find(b"\0")
    if end < 0 or content[:1] != b"F":
        raise QueueCorrupt("info: no F record")
    return content[1:end]


def parse_notes(content: bytes) -> Mapping[int, Note]:
    """The notes of an info file; whatever else follows the sender is passed over."""
    at = content.find(b"\0") + 1
    if at == len(content):
        return NO_NOTES
    return {
        int(found[2]): Note(found[3], is_unknown=found[1] == b"U")
        for found in _NOTE.finditer(content, at)
    }
