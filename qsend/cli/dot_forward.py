"""dot-forward: obey the .forward files that sendmail users have.

Exit codes: 0 go on with the next line: no file says anything, or the file names the
recipient himself; 99 all is done; 100 refused for good, or usage; 111.
Source: dot-forward(1), dot-forward.c; sysio/forwardfile for what differs. What the
files need is loaded only when there is one: most users have none.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence

from qsend.cli import outcome
from qsend.cli.options import CommandLine

_HELP = """\
usage: dot-forward [ -nN ] file ...

In a .qmail file or the default delivery, `|dot-forward .forward` followed by the line
of the ordinary delivery obeys .forward files in sendmail's format:

  joe@elsewhere.example, ann     addresses
  \\joe                           joe himself: the next line delivers, too
  "|/usr/bin/vacation joe"       a program, with the lines that preline adds
  /home/joe/archive              an mbox file of joe's; /dev/null for nothing
  :include:/home/joe/list        more of the same, in another file

The first file counts that exists and says something. -n prints what would be done.
"""


def main(argv: Sequence[str]) -> int:
    """`argv` is options and files."""
    return outcome.run("dot-forward", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    line = CommandLine(argv, "nN", "")
    letters = [letter for letter, _ in line.options()]
    is_dry = letters[-1:] == ["n"]
    if not all(map(_is_absent, line.arguments)):
        obey: Callable[[Sequence[str], bool], int]
        obey = importlib.import_module("qsend.cli.forwarding").obey
        return obey(line.arguments, is_dry)
    if is_dry:
        outcome.say("direct delivery")
    return 0


def _is_absent(path: str) -> bool:
    """Whether there is surely no such file; any doubt is for who reads it."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
