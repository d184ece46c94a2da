"""Writing a constant database, in the place of an old one.

Source: cdb(5); qmail cdbmss.c: records in the order given, so that of two with one
key the first is found.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO

import cdblib

from qsend.core.errors import PermFail
from qsend.sysio.replacefile import replace_file


def make_cdb(path: str, new: str, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Make the database `path` of (key, value) pairs, by way of the file `new`.

    Raises: as replace_file, and what `records` raises; PermFail beyond 4 GiB. The
        old database stays as it was then.
    """

    replace_file(path, new, lambda file: fill(file, records))


def fill(file: BinaryIO, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Write a database into an empty file. Raises: as make_cdb."""
    try:
        with cdblib.Writer(file) as writer:
            for key, value in records:
                writer.put(key, value)
    except struct.error as exc:
        raise PermFail("a constant database holds 4 GiB at most") from exc
