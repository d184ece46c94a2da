"""Control files as lines, for the programs that need no more of them.

Source: qmail-control(5), control.c.
"""

from __future__ import annotations

FILE_MAX = 16 << 20
"""Longest control file read; a million virtual domains fit."""


def one_line(content: bytes) -> bytes:
    """The first line without trailing blanks; b"" for an empty file."""
    return content.split(b"\n", 1)[0].rstrip(b" \t\r")


def lines(content: bytes) -> list[tuple[int, bytes]]:
    """(line number from 1, text) of every line that says something.

    Trailing blanks are cut; empty lines and those starting with `#` are dropped;
    leading blanks stay.
    """
    numbered = enumerate(content.split(b"\n"), start=1)
    cut = ((number, line.rstrip(b" \t\r")) for number, line in numbered)
    return [(number, line) for number, line in cut if line and line[:1] != b"#"]
