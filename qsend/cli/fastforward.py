"""fastforward: forward a message as a table says.

Exit codes: 0 done, or with -p nothing found; 99 with -p done; 100 no such mailbox, or
refused for good; 111.
Source: fastforward(1), fastforward.c. Unlike it: a damaged table or list defers the
message, and without $SENDER nothing is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qsend.cli import outcome
from qsend.cli.delivery import forward, variable
from qsend.cli.options import CommandLine, UsageError
from qsend.core.dotqmail import Effect, effect
from qsend.core.errors import PermFail, TempFail
from qsend.core.fastforward import Forwarding, Lookup, ReadList, Run, Step, expand
from qsend.formats.maillist import LIST_MAX
from qsend.sysio import stdin
from qsend.sysio.cdbfile import CdbFile
from qsend.sysio.childprogram import NotStarted, run, run_fed

_HELP = """\
usage: fastforward [ -nNpPdD ] data.cdb

In ~alias/.qmail-default, `|fastforward -d /etc/aliases.cdb` puts the aliases in force
that newaliases has read. The table may also come from setforward.

  -d  the recipient is $DEFAULT@$HOST, or $EXT@$HOST where DEFAULT is not set
  -D  the recipient is $RECIPIENT (this is the default)
  -p  pass on what is not found to the next line (exit 0); exit 99 when found
  -P  bounce what is not found (exit 100); exit 0 when found (this is the default)
  -n  say what would be done, and do nothing; -N do it (this is the default)
"""
_RECORD_MAX = 64 << 20
"""Longest record read: an alias for a million addresses."""
_READABLE = 0o444
_CONTROL = dict.fromkeys(range(32), "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    path: str
    delivers: bool
    passes: bool
    recipient: bytes


def main(argv: Sequence[str]) -> int:
    """`argv` is the options and the table."""
    return outcome.run("fastforward", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    letters = {"n": "N", "p": "P", "d": "D"}
    line = CommandLine(argv, "nNpPdD", "")
    for letter, _ in line.options():
        letters[letter.lower()] = letter
    if not line.arguments:
        raise UsageError
    path = line.arguments[0]
    table = _open(path)
    try:
        options = _Options(
            path=path,
            delivers=letters["n"] == "N",
            passes=letters["p"] == "p",
            recipient=_recipient(letters["d"] == "d"),
        )
        forwarding = _Follower(table, options).follow()
    finally:
        table.close()
    if not forwarding.is_found:
        if options.passes:
            return 0
        outcome.say("Sorry, no mailbox here by that name. (#5.1.1)")
        return outcome.PERMANENT
    (_send if options.delivers else _describe)(forwarding)
    return 99 if options.passes else 0


def _open(path: str) -> CdbFile:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise TempFail(f"unable to read {path}: {exc.strerror}") from exc
    try:
        return CdbFile(fd, path, _RECORD_MAX)
    except BaseException:
        os.close(fd)
        raise


def _recipient(is_default: bool) -> bytes:
    environ = os.environb
    if not is_default:
        return _needed(environ.get(b"RECIPIENT"), "$RECIPIENT")
    local = environ.get(b"DEFAULT", environ.get(b"EXT"))
    local = _needed(local, "$DEFAULT or $EXT")
    return local + b"@" + _needed(environ.get(b"HOST"), "$HOST")


def _needed(value: bytes | None, names: str) -> bytes:
    if value is None:
        raise PermFail(f"{names} must be set")
    return value


class _Follower:
    """Answers the questions of one expansion."""

    def __init__(self, table: CdbFile, options: _Options) -> None:
        self._table = table
        self._options = options

    def follow(self) -> Forwarding:
        """Run the programs that are met, and say whom to forward to."""
        sender = os.environb.get(b"SENDER")
        if sender is None:
            if self._options.delivers:
                raise PermFail("$SENDER must be set")
            sender = b"original envelope sender"
        steps = expand(self._options.recipient, sender)
        answer: bytes | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                forwarding: Forwarding = end.value
                return forwarding
            answer = self._answer(step)

    def _answer(self, step: Step) -> bytes | None:
        match step:
            case Lookup(key):
                return self._look_up(key)
            case ReadList(path):
                return _read_list(os.fsdecode(path))
            case Run(command) if self._options.delivers:
                _obey(command)
            case Run(command):
                outcome.say(f"run {_shown(command)}")
        return None

    def _look_up(self, key: bytes) -> bytes | None:
        try:
            return self._table.get(key)
        except OSError as exc:
            path = self._options.path
            raise TempFail(f"unable to read {path}: {exc.strerror}") from exc


def _read_list(path: str) -> bytes:
    """A list that everybody may read: its owner has not only us in mind."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & _READABLE != _READABLE:
                raise TempFail(f"{path} is not world-readable")
            content = file.read(LIST_MAX + 1)
    except OSError as exc:
        raise TempFail(f"unable to read {path}: {exc.strerror}") from exc
    if len(content) > LIST_MAX:
        raise TempFail(f"{path} is too long")
    return content


def _obey(command: bytes) -> None:
    """Run `|program` with the message, `!program` with preline's lines too.

    Raises: PermFail or TempFail, without words, for what its exit code means: nothing
        but 0 is a success.
    """
    # By that name, as in fastforward.c: a shell's complaint is the text of a bounce.
    shell = ["sh", "-c", os.fsdecode(command[1:])]
    try:
        code = run_fed(shell, _with_lines()) if command[:1] == b"!" else run(shell)
    except NotStarted as exc:
        raise TempFail(str(exc)) from exc
    if code:
        raise PermFail if effect(code) is Effect.FAILURE else TempFail
    stdin.rewind()


def _with_lines() -> Iterator[bytes]:
    yield b"".join(variable(name) for name in ("UFLINE", "RPLINE", "DTLINE"))
    yield from stdin.pieces()


def _send(forwarding: Forwarding) -> None:
    if not forwarding.recips:
        return
    dtline = os.environb.get(b"DTLINE", b"")
    qp = forward(dtline, forwarding.sender, forwarding.recips)
    outcome.say(f"fastforward: qp {qp}")


def _describe(forwarding: Forwarding) -> None:
    if not forwarding.recips:
        outcome.say("no forwarding")
        return
    outcome.say(f"from <{_shown(forwarding.sender)}>")
    for recip in forwarding.recips:
        outcome.say(f"to <{_shown(recip)}>")


def _shown(text: bytes) -> str:
    return os.fsdecode(text).translate(_CONTROL)
