"""Names of queue files, relative to the queue directory.

Source: qmail fmtqfn.c, INTERNALS section 1; queue_layout.md.
"""

from __future__ import annotations

from qsend.core.model import SPLIT, Channel, MessId

SPLIT_DIRS = ("mess", "info", "local", "remote")
FLAT_DIRS = ("pid", "intd", "todo", "bounce", "lock", "aside")


def split_name(messid: MessId) -> str:
    """`<N mod 23>/<N>`: the path of a message inside a split directory."""
    return f"{messid % SPLIT}/{messid}"


def mess(messid: MessId) -> str:
    """Path of the message itself."""
    return f"mess/{messid % SPLIT}/{messid}"


def info(messid: MessId) -> str:
    """Path of the sender record; its mtime is the birth."""
    return f"info/{messid % SPLIT}/{messid}"


def recips(channel: Channel, messid: MessId) -> str:
    """Path of one channel's recipient records."""
    return f"{channel.value}/{messid % SPLIT}/{messid}"


def intd(messid: MessId) -> str:
    """Path of the envelope while it is written."""
    return f"intd/{messid}"


def todo(messid: MessId) -> str:
    """Path of the envelope of a queued, not yet preprocessed message."""
    return f"todo/{messid}"


def bounce(messid: MessId) -> str:
    """Path of the collected failure text."""
    return f"bounce/{messid}"


def aside_name(messid: MessId, stamp: int) -> str:
    """`<N>.<unix time>`: where aside/ keeps the files of a damaged message.

    The time keeps apart two messages that had the same number.
    """
    return f"{messid}.{stamp}"


def parse_messid(name: str) -> MessId | None:
    """The number a directory entry stands for, or None for a foreign name.

    Only plain decimal digits without a leading zero count, at most 20 of them
    (an inode number is 64 bits).
    """
    if not name.isascii() or not name.isdigit() or len(name) > 20 or name[0] == "0":
        return None
    return MessId(int(name))
