"""setmaillist: make a list for fastforward of the lines on standard input.

Exit codes: 0; 100 usage; 111; the old list stays then.
Source: setmaillist(1), setmaillist.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from qsend.cli import outcome
from qsend.cli.options import UsageError
from qsend.cli.tables import written
from qsend.formats.maillist import LIST_MAX, parse_lines
from qsend.sysio import stdin
from qsend.sysio.replacefile import replace_file

_HELP = """\
usage: setmaillist list.bin list.tmp

Makes list.bin, by way of list.tmp, of standard input: one address to a line, with its
domain, or a path (./ or /) of another such list. Lines with # are comments.
"""


def main(argv: Sequence[str]) -> int:
    """`argv` is the list and the temporary file."""
    return outcome.run("setmaillist", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    if len(argv) < 2:
        raise UsageError
    path, tmp = argv[:2]
    commands = list(parse_lines(stdin.read_whole(LIST_MAX)))

    def write(file: BinaryIO) -> None:
        file.writelines(command + b"\0" for command in commands)

    with written(tmp):
        replace_file(path, tmp, write)
    return 0
