"""The message on descriptor 0 of a program that a dot-qmail line runs.

Source: qmail-command(8): at offset 0 when the program starts, and shared with others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from qsend.core.errors import TempFail

_CHUNK_BYTES = 65536


def pieces() -> Iterator[bytes]:
    """What is still unread of standard input, to its end.

    Raises: TempFail when it cannot be read.
    """
    while True:
        try:
            piece = os.read(0, _CHUNK_BYTES)
        except OSError as exc:
            raise TempFail(f"unable to read message: {exc.strerror}") from exc
        if not piece:
            return
        yield piece


def rewind() -> None:
    """Go back to the first byte. Raises: TempFail when it is not a file."""
    try:
        os.lseek(0, 0, os.SEEK_SET)
    except OSError as exc:
        raise TempFail(f"unable to rewind: {exc.strerror}") from exc


def read_whole(limit: int) -> bytes:
    """All of standard input. Raises: TempFail when it cannot be read, or is longer."""
    parts = []
    for piece in pieces():
        parts.append(piece)
        limit -= len(piece)
        if limit < 0:
            raise TempFail("the input is too long")
    return b"".join(parts)
