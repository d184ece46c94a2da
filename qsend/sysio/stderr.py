"""Descriptor 2 of programs that qmail-start runs with it closed."""

from __future__ import annotations

import os
import sys


def ensure_stderr() -> None:
    """Have descriptor 2 and sys.stderr lead somewhere, if only to /dev/null.

    No file that is opened later becomes descriptor 2, and what is said there
    does no harm. Source: qmail-start.c close23456().
    """
    try:
        os.fstat(2)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        if null != 2:
            os.dup2(null, 2)
            os.close(null)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - for good


def complain(program: str, words: str) -> None:
    """One line for the log, unless inetd gave the client as descriptor 2, too."""
    if not os.path.sameopenfile(1, 2):
        os.write(2, f"{program}: {words}\n".encode("utf-8", "backslashreplace"))
