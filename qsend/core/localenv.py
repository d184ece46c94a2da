"""What a local delivery adds: generated lines, the environment, the loop check.

Must not read the process's own environment or clock: both are parameters.
Source: qmail-command(8), qmail-local.c, qmail-local(8).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from qsend.core.address import quote
from qsend.core.model import User

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun",
    b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
)  # fmt: skip
_FROM_TABLE = bytes.maketrans(b" \t\n", b"---")


def delivered_to(local: bytes, domain: bytes) -> bytes:
    """The Delivered-To line with its LF; a LF in the address becomes `_`."""
    return b"Delivered-To: %b@%b\n" % (
        local.replace(b"\n", b"_"),
        domain.replace(b"\n", b"_"),
    )


def return_path(sender: bytes) -> bytes:
    """The Return-Path line with its LF; a LF in the address becomes `_`."""
    return b"Return-Path: <%b>\n" % quote(sender).replace(b"\n", b"_")


def from_line(sender: bytes, now: int) -> bytes:
    """The mbox `From ` line with its LF, the time in UTC.

    Blanks in the sender become `-`, a null sender `MAILER-DAEMON`. The day of the
    month has two digits, unlike asctime's. `now` is wall clock seconds.
    """
    at = datetime.fromtimestamp(now, UTC)
    return b"From %b %b %b %02d %02d:%02d:%02d %04d\n" % (
        sender.translate(_FROM_TABLE) or b"MAILER-DAEMON",
        _DAYS[at.weekday()],
        _MONTHS[at.month - 1],
        at.day,
        at.hour,
        at.minute,
        at.second,
        at.year,
    )


def environment(
    base: Mapping[bytes, bytes],
    user: User,
    *,
    local: bytes,
    domain: bytes,
    sender: bytes,
    new_sender: bytes,
    default: bytes | None,
    now: int,
) -> dict[bytes, bytes]:
    """The environment of the programs of one delivery.

    Args:
        base: what the caller lets through (PATH); names set here win, and a
            DEFAULT in it never survives, unlike qmail's inherited one.
        user: whose delivery it is; EXT keeps its case.
        local, domain: the recipient's two sides.
        sender: envelope sender, VERP-expanded.
        new_sender: sender of what is forwarded.
        default: what the name of a default file left open, None if it was none.
        now: wall clock, whole seconds, for the mbox line.
    """
    environ = dict(base)
    environ.pop(b"DEFAULT", None)
    ext2, ext3, ext4 = _tails(user.ext)
    host2, host3, host4 = _heads(domain)
    environ |= {
        b"SENDER": sender,
        b"NEWSENDER": new_sender,
        b"RECIPIENT": local + b"@" + domain,
        b"LOCAL": local,
        b"HOST": domain,
        b"HOST2": host2,
        b"HOST3": host3,
        b"HOST4": host4,
        b"USER": user.name,
        b"HOME": user.home,
        b"EXT": user.ext,
        b"EXT2": ext2,
        b"EXT3": ext3,
        b"EXT4": ext4,
        b"DTLINE": delivered_to(local, domain),
        b"RPLINE": return_path(sender),
        b"UFLINE": from_line(sender, now),
    }
    if default is not None:
        environ[b"DEFAULT"] = default
    return environ


def _tails(ext: bytes) -> list[bytes]:
    """What follows the first, second and third `-`; b"" where there is none."""
    tails = []
    for _ in range(3):
        ext = ext.partition(b"-")[2]
        tails.append(ext)
    return tails


def _heads(host: bytes) -> list[bytes]:
    """The host up to its last, second last and third last dot."""
    heads = []
    for _ in range(3):
        head, dot, _last = host.rpartition(b".")
        host = head if dot else host
        heads.append(host)
    return heads


class LoopScan:
    """Looks for one exact line in the header of a message, fed in pieces.

    The header ends at the first empty line. Memory is bounded by the line looked
    for, however long the header's lines are.
    """

    __slots__ = ("_needle", "_tail", "found")

    def __init__(self, line: bytes) -> None:
        """Look for `line`, which ends with LF."""
        self.found = False
        self._needle = b"\n" + line
        self._tail = b"\n"

    def feed(self, chunk: bytes) -> bool:
        """Take the next piece; True when the answer is known (see `found`).

        The answer after the last piece, if never known, is `found` all the same.
        """
        window = self._tail + chunk
        end = window.find(b"\n\n")
        header = window if end < 0 else window[: end + 1]
        self.found = self._needle in header
        self._tail = window[1 - len(self._needle) :]
        return self.found or end >= 0
