"""Command lines as getopt(3) reads them: one-letter options, then arguments.

Smaller and faster to load than argparse, and made for programs whose options
are given together or with the value attached (`-oi`, `-fsender`).
Source: getopt(3); qmail subgetopt.c.
"""

from __future__ import annotations

import posix
import sys

from qsend.core.errors import PermFail
from qsend.core.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn


class UsageError(PermFail):
    """A command line that the program does not understand; exit 100."""


class CommandLine:
    """One command line, read once from left to right.

    `flags` are letters without a value; `valued` those with one, attached or in
    the next argument; `swallowing` those that take whatever is attached, which
    may be nothing. Options end at `--`, at `-` and at the first other argument.
    """

    def __init__(
        self, argv: Sequence[str], flags: str, valued: str, swallowing: str = ""
    ) -> None:
        self._rest = list(reversed(argv))
        self._flags = flags
        self._valued = valued
        self._swallowing = swallowing

    @property
    def arguments(self) -> list[str]:
        """What is left; the arguments, once `options` is exhausted."""
        return self._rest[::-1]

    def options(self) -> Iterator[tuple[str, str]]:
        """(letter, value) of each option; the value is "" for a flag.

        Raises: UsageError at an unknown letter or a missing value.
        """
        while self._rest and self._rest[-1][:1] == "-" and self._rest[-1] != "-":
            cluster = self._rest.pop()[1:]
            if cluster == "-":
                return
            yield from self._cluster(cluster)

    def _cluster(self, cluster: str) -> Iterator[tuple[str, str]]:
        for index, letter in enumerate(cluster):
            attached = cluster[index + 1 :]
            if letter in self._flags:
                yield letter, ""
            elif letter in self._swallowing:
                yield letter, attached
                return
            elif letter in self._valued:
                yield letter, attached or self._next_value(letter)
                return
            else:
                raise UsageError(f"illegal option -- {letter}")

    def _next_value(self, letter: str) -> str:
        if not self._rest:
            raise UsageError(f"option requires an argument -- {letter}")
        return self._rest.pop()


def wants_help(argv: Sequence[str]) -> bool:
    """Whether `--help` is all that was said: beside others it may be an address."""
    return list(argv) == ["--help"]


def leave(code: int) -> NoReturn:
    """End the process at once: Python's own end takes a sixth of a short run.

    For programs without threads, exit handlers and open files of their own.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    posix._exit(code)


def teach(text: str) -> int:
    """Print what a program is for; the exit code."""
    sys.stdout.write(text)
    return 0
