"""notqmail, built and installed outside the project, run on homes of the tests' own.

$NOTQMAIL_HOME is where it is installed (its conf-qmail); nothing is written there.
Its programs have that path compiled in, so each is run in a mount namespace of its
own, where the home of the test lies at that path and bin/ holds notqmail's programs.
Under its own path the test's home has our programs in bin/.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

VARIABLE = "NOTQMAIL_HOME"
HOME = Path(os.environ.get(VARIABLE, "/nonexistent"))
_BIN = "notqmail-bin"
"""The directory of a test's home where notqmail's bin/ is mounted meanwhile."""

_SCRIPT = f"""
set -e
alias=$(getent passwd alias | cut -d: -f6)
mount --bind "$3" "$2/{_BIN}"
if ! [ -d "$alias" ]; then
    top=$alias; until [ -d "$top" ]; do top=$(dirname "$top"); done
    mount -t tmpfs none "$top"
    mkdir -p "$1" "$alias"
fi
mount --bind "$2" "$1"
mount --bind "$2/{_BIN}" "$1/bin"
[ "$alias" -ef "$1/alias" ] || mount --bind "$2/alias" "$alias"
shift 3
exec "$@"
"""
"""Also the home of the account alias is the test's: notqmail takes it from passwd."""

is_absent = VARIABLE not in os.environ

marks = [
    pytest.mark.root,
    pytest.mark.skipif(is_absent, reason=f"{VARIABLE} is not set: not run"),
]
"""What every module of this directory is marked with."""


def program(name: str) -> str:
    """The path of one of notqmail's programs."""
    return str(HOME / "bin" / name)


def on_home(
    home: Path, command: Sequence[str], programs: Path = HOME / "bin"
) -> list[str]:
    """The command, with `home` where notqmail's programs look for theirs.

    `programs` is what they find in bin/.
    """
    (home / _BIN).mkdir(exist_ok=True)
    alone = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c"]
    return [*alone, _SCRIPT, "sh", str(HOME), str(home), str(programs), *command]
