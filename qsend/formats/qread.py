"""What qmail-qread prints: one line per message, one per recipient.

Source: qmail-qread.c; qmail-qread(8).
"""

from __future__ import annotations

from datetime import UTC, datetime

from qsend.core.model import Channel, MessId

_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_LAST = 253402300799
"""The end of the year 9999: a damaged mtime may lie beyond what a date can say."""
_PLAIN = bytes(byte if 32 <= byte <= 126 else ord("_") for byte in range(256))


def plain(text: bytes) -> bytes:
    """The text with `_` for every byte outside 32 to 126."""
    return text.translate(_PLAIN)


def render_summary(
    messid: MessId, birth: int, size: int, sender: bytes, *, is_bouncing: bool
) -> bytes:
    """The first line of a message; `birth` in whole seconds since the epoch."""
    when = datetime.fromtimestamp(min(birth, _LAST), UTC)
    date = f"{when.day} {_MONTHS[when.month - 1]} {when.year} {when:%H:%M:%S} GMT"
    head = f"{date}  #{messid}  {size}  <".encode()
    # The blank after `>` is always there.
    return head + plain(sender) + b"> " + (b" bouncing" if is_bouncing else b"") + b"\n"


def render_recip(channel: Channel, recip: bytes, *, is_done: bool) -> bytes:
    """The line of one recipient."""
    done = b"  done" if is_done else b""
    return done + b"\t%b\t%b\n" % (channel.value.encode(), plain(recip))


def render_warning(messid: MessId, problem: str) -> bytes:
    """The line that says why a message is not, or not wholly, shown."""
    return f"warning: trouble with #{messid}: {problem}\n".encode()
