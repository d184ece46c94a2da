"""Who is logged in where: the records of Linux's utmp file.

Source: utmp(5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_USER_PROCESS = 7
_RECORD = struct.Struct("<h2xi32s4s32s308x")


def parse_utmp(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(user, line) of each login; the line is a path below /dev, as `pts/3`.

    A record cut short at the end is left out. Raises: nothing.
    """
    whole = len(content) - len(content) % _RECORD.size
    for kind, _pid, line, _id, user in _RECORD.iter_unpack(content[:whole]):
        if kind == _USER_PROCESS:
            yield user.split(b"\0", 1)[0], line.split(b"\0", 1)[0]
