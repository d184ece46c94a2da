"""qmail-clean: the classic cleaner, commands on descriptor 0, answers on 1.

Serves a real qmail-send, or ours under `--clean`. Runs as qmailq in the queue
directory of the home. Every command gets exactly one byte: `+` done, `!` failed,
`x` malformed (qmail answers one `x` per bad byte and loses step). Names only
numbers, so it cannot compare identities as clean does. Exit codes: 0 when the
commands end, 100 when nobody takes the answers, 111 when the queue cannot be
opened.
Source: qmail-clean.c; qmail-clean(8). Unlike qmail's it makes removals durable,
as control/durability says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import ConfigError, TempFail
from qsend.formats.classic import (
    CLEAN_DONE,
    CLEAN_FAILED,
    CLEAN_MALFORMED,
    CleanCommand,
    CleanOp,
    CleanReader,
)
from qsend.formats.cleanwire import Foop, Request, Todo
from qsend.formats.control import Durability, parse_controls
from qsend.sysio import clock
from qsend.sysio.cleaner import Cleaner
from qsend.sysio.home import find_home, read_control
from qsend.sysio.stderr import ensure_stderr

_HELP = """\
usage: qmail-clean

Removes files from the queue as a classic qmail-send asks for on descriptor 0, and
answers on descriptor 1. qmail-start of qmail starts it; so does `qsend start --clean`.
"""

SWEEP_EVERY = 31
"""Commands from one look through pid/ to the next (qmail-clean.c cleanuppid)."""


def main(argv: Sequence[str]) -> int:
    """Serve until descriptor 0 ends; arguments are ignored, as qmail does."""
    if wants_help(argv):
        return teach(_HELP)
    ensure_stderr()
    try:
        home = find_home(None, os.environ)
        cleaner = Cleaner(f"{home}/queue", _level(home))
    except (OSError, TempFail, ConfigError) as exc:
        sys.stderr.write(f"qmail-clean: fatal: unable to start: {exc}\n")
        return 111
    try:
        return _serve(cleaner)
    finally:
        cleaner.close()


def _level(home: str) -> Durability:
    content = read_control(home, "durability")
    if content is None:
        return Durability.FULL
    return parse_controls({"me": b"-", "durability": content}).durability


def _serve(cleaner: Cleaner) -> int:
    reader = CleanReader()
    left = 0
    while True:
        if left <= 0:
            _sweep(cleaner)
            left = SWEEP_EVERY
        try:
            data = os.read(0, 65536)
        except OSError:
            return 0  # as at the end: a command that was not read is asked again
        if not data:
            return 0
        answers = _work(cleaner, reader.feed(data))
        left -= len(answers)
        try:
            _write_all(answers)
        except OSError:
            return 100


def _work(cleaner: Cleaner, commands: Sequence[CleanCommand | None]) -> bytes:
    """One answer per command, in order; they share their syncs."""
    batch = [_request(command) for command in commands if command is not None]
    results = iter(cleaner.work(batch))
    return b"".join(
        CLEAN_MALFORMED
        if command is None
        else CLEAN_FAILED
        if next(results)
        else CLEAN_DONE
        for command in commands
    )


def _request(command: CleanCommand) -> Request:
    if command.op is CleanOp.FOOP:
        return Foop(messid=command.messid, identity=None)
    return Todo(messid=command.messid)


def _sweep(cleaner: Cleaner) -> None:
    try:
        cleaner.sweep_pid(clock.now())
    except OSError as exc:
        # The next look tries again; nothing else depends on it.
        sys.stderr.write(
            f"qmail-clean: warning: unable to look through pid: {exc.strerror}\n"
        )


def _write_all(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]
