"""newinclude: put a list in force that an alias includes.

Exit codes: 0; 100 usage; 111; the old list stays then.
Source: newinclude(1), newinclude.c.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

from qsend.cli import outcome
from qsend.cli.options import UsageError
from qsend.cli.tables import read_domains, read_source, written
from qsend.formats.aliases import parse_include
from qsend.formats.injectenv import CONTROL_VARIABLES
from qsend.sysio.replacefile import replace_file

_HELP = """\
usage: newinclude list

Reads addresses from the file list, as many to a line as you like, and writes them to
list.bin, where fastforward looks for them when an alias says `:include:list`. The
file may include others in the same way; it may not name programs or files.
"""


def main(argv: Sequence[str]) -> int:
    """`argv[0]` is the list."""
    return outcome.run("newinclude", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    if not argv:
        raise UsageError
    path = argv[0]
    domains = read_domains(
        {
            name: os.fsencode(os.environ[variable])
            for name, variable in CONTROL_VARIABLES.items()
            if variable in os.environ
        }
    )
    commands = list(parse_include(read_source(path), domains))

    def write(file: BinaryIO) -> None:
        file.writelines(command + b"\0" for command in commands)

    with written(f"{path}.tmp"):
        replace_file(f"{path}.bin", f"{path}.tmp", write)
    return 0
