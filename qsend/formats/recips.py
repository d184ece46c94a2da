"""local/N and remote/N: the recipients of one channel, and which are done.

Records `T<recip>NUL`, in envelope order. A finished recipient is marked by
overwriting its T with D in place; nothing else ever changes, so the offset of a
record names its recipient for the life of the file.
Source: qmail-send.c todo_do(), markdone(); queue_layout.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from qsend.core.errors import QueueCorrupt

RECIP_MAX = 4096
"""Longest stored recipient: an address of 1002 bytes after rewriting, which may
put the prefix of a virtual domain or a default host around it."""

RECORD_MAX = RECIP_MAX + 2
"""A whole record: its letter, the recipient, the NUL."""

WAITING = b"T"
DONE = b"D"


def render_recips(
    recips: Iterable[bytes], done: Collection[int] = ()
) -> tuple[bytes, list[int]]:
    """The content of a channel file, and the offset of each record.

    Args:
        recips: rewritten recipients in envelope order, without NUL, each at most
            RECIP_MAX bytes.
        done: positions in `recips` (from 0) that are delivered already.
    Raises: ValueError for a recipient that no reader would accept.
    """
    parts: list[bytes] = []
    offsets: list[int] = []
    at = 0
    for position, recip in enumerate(recips):
        if len(recip) > RECIP_MAX or b"\0" in recip:
            raise ValueError(f"recipient of {len(recip)} bytes, or with a NUL")
        parts.append((DONE if position in done else WAITING) + recip + b"\0")
        offsets.append(at)
        at += len(recip) + 2
    return b"".join(parts), offsets


def parse_recips(content: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """(offset, is done, recipient) of every record, in file order.

    Raises: QueueCorrupt, after the records before the damage were given out.
    """
    at, size = 0, len(content)
    while at < size:
        end = content.find(b"\0", at, at + RECORD_MAX)
        letter = content[at : at + 1]
        if end < 0 or letter not in (WAITING, DONE):
            raise QueueCorrupt(f"recipients: bad record at offset {at}")
        yield at, letter == DONE, content[at + 1 : end]
        at = end + 1


def parse_recip(piece: bytes) -> bytes:
    """The recipient of the record that `piece` starts with; more may follow.

    Raises: QueueCorrupt when `piece` does not start with a whole record.
    """
    end = piece.find(b"\0", 0, RECORD_MAX)
    if end < 0 or piece[:1] not in (WAITING, DONE):
        raise QueueCorrupt("recipients: bad record")
    return piece[1:end]
