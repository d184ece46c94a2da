"""info/N: who sent a message; the file's mtime is its birth.

One record, `F<sender>NUL`. A real qmail-send writes every F of the envelope
into it, so a reader takes the first record and ignores what follows.
Source: qmail-send.c getinfo(), todo_do(); queue_layout.md.
"""

from __future__ import annotations

from qsend.core.errors import QueueCorrupt

INFO_MAX = 65536
"""Longest info file read: no envelope sender comes near (ADDRESS_MAX 1002)."""


def render_info(sender: bytes) -> bytes:
    """The content of info/N; `sender` may be empty and has no NUL."""
    return b"F" + sender + b"\0"


def parse_info(content: bytes) -> bytes:
    """The sender; b"" for the null sender.

    Raises: QueueCorrupt when the first record is cut short or not an F record.
    """
    end = content.find(b"\0")
    if end < 0 or content[:1] != b"F":
        raise QueueCorrupt("info: no F record")
    return content[1:end]
