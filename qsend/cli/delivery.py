"""What a dot-qmail line gives to the programs it runs, and queueing it once more.

Source: qmail-command(8).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from qsend.core.errors import PermFail
from qsend.sysio import stdin
from qsend.sysio.home import find_home
from qsend.sysio.mailqueue import inject


def variable(name: str) -> bytes:
    """A variable of the delivery. Raises: PermFail when it is not set."""
    try:
        return os.environb[os.fsencode(name)]
    except KeyError:
        raise PermFail(f"{name} not set") from None


def forward(dtline: bytes, sender: bytes, recips: Sequence[bytes]) -> int:
    """Queue the Delivered-To line and the message on standard input; qp's number.

    Raises: PermFail, TempFail, ending in a status code.
    """

    def content() -> Iterator[bytes]:
        yield dtline
        yield from stdin.pieces()

    return inject(find_home(None, os.environ), content(), sender, recips, os.environ)
