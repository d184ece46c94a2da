"""setlock: run a program while a file is locked.

`setlock [ -nNxX ] file program [ arg ... ]`. The file is created if it is not there,
and stays. The lock is held by the program, and by what it starts, through the
descriptor. Exit codes: 111 when the file cannot be locked or the program not run
(with -x: 0 when it cannot be locked); 100 wrong usage; else the program's.
Source: setlock(1), setlock.c.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.options import CommandLine, UsageError
from qsend.core.errors import TempFail
from qsend.sysio.childprogram import become

_HELP = """\
usage: setlock [ -nNxX ] file program [ arg ... ]

Locks file, which is created if it is not there, and runs the program. The lock ends
when the program has ended, and all that it started and that kept its descriptors.

  -n  do not wait for a lock that somebody else holds
  -x  if the file cannot be opened or locked, exit 0 without a word
  -N, -X  the opposite, which is the default

  setlock -nx /var/lock/push maildirpush /home/serialmail

Exit codes: 111 when the file cannot be locked, or the program not be run; 100 for
wrong usage; otherwise that of the program.
"""


def main(argv: Sequence[str]) -> int:
    """Lock and run."""
    return outcome.run("setlock", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    line = CommandLine(argv, "nNxX", "")
    chosen = {"n": False, "x": False}
    for letter, _ in line.options():
        chosen[letter.lower()] = letter.islower()
    if len(line.arguments) < 2:
        raise UsageError
    name, *program = line.arguments
    try:
        fd = _locked(name, waits=not chosen["n"])
    except TempFail:
        if chosen["x"]:
            return 0
        raise
    os.set_inheritable(fd, True)
    return become(program)


def _locked(name: str, *, waits: bool) -> int:
    """A descriptor of the locked file. Raises: TempFail."""
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CREAT
        fd = os.open(name, flags, 0o600)
    except OSError as exc:
        raise TempFail(f"unable to open {name}: {exc.strerror}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except OSError as exc:
        raise TempFail(f"unable to lock {name}: {exc.strerror}") from exc
    return fd
