"""How every `qsend` command reads its arguments and ends.

Source: docs/ARCHITECTURE.md. Exit codes: 0, 1 negative answer, 100 usage or
configuration, 111 temporary.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from qsend.sysio.home import find_home

EXIT_NO = 1
EXIT_USAGE = 100
EXIT_TEMPORARY = 111


class Parser(argparse.ArgumentParser):
    """argparse with qmail's exit codes, no abbreviations and a `--home`."""

    def __init__(self, command: str, summary: str, explanation: str) -> None:
        """`summary` is one line; `explanation` teaches, ready formatted."""
        super().__init__(
            prog=f"qsend {command}".rstrip(),
            description=summary,
            epilog=explanation,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_home(self, default: str | None = None) -> None:
        """The option that says which qsend is meant."""
        self.add_argument(
            "--home",
            metavar="DIR",
            default=default,
            help="qsend's home; default: $QSEND_HOME, else the path in "
            "/etc/qsend/home, else /var/qmail",
        )

    def add_json(self, default: str | bool = False) -> None:
        """The option for programs that read the answer."""
        self.add_argument(
            "--json",
            action="store_true",
            default=default,
            help="print JSON instead of a table",
        )

    def error(self, message: str) -> NoReturn:
        """Wrong usage: what was expected, where to read more, exit 100."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\ntry: {self.prog} --help\n")


def home_of(args: argparse.Namespace) -> str:
    """The home, absolute. Raises: TempFail as find_home."""
    return os.path.abspath(find_home(args.home, os.environ))


def complain(command: str, text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"qsend {command}: {text}\n")


def shown(text: str) -> str:
    """Text from strangers without what a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in text)
