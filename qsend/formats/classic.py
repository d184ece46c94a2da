"""The wires of qmail's own spawners and cleaner, both directions.

A spawner first writes one byte: how many deliveries it takes at once. Then it
reads commands (slot number, then message path, sender and recipient, each ended
by NUL) and writes reports (slot number, letter, text, NUL) in any order. A cleaner
reads `foop/N` and `todo/N`, each ended by NUL, and writes one byte for each.
Source: spawn.c, qmail-send.c del_start() and del_dochan(), qmail-clean.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from qsend.core.errors import LocalProtocolError
from qsend.core.model import Letter, MessId
from qsend.formats.delivery import REPORT_MAX

SLOTS_DEFAULT = 120
"""What qmail's spawners say unless built otherwise (conf-spawn)."""
SLOTS_MAX = 255
"""A slot number is one byte, and the classic send uses 0 to 254."""
FIELD_MAX = 65536
"""Longest command field kept; send's own addresses have 1002 bytes at most, and
VERP joins two of them."""
CLEAN_MIN = 7
"""Shortest cleaner command with its NUL: `foop/1` (qmail-clean.c)."""
CLEAN_MAX = 100
"""Longest cleaner command with its NUL."""

_MESSID_END = 1 << 64
_LETTERS = {letter.value: letter for letter in Letter}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One delivery that send asks a classic spawner for.

    `delnum` is the slot, 0 to 255; `path` is `<N mod 23>/<N>` below mess/, not
    yet checked by anybody; `is_cut` says that a field was longer than FIELD_MAX
    and is incomplete here.
    """

    delnum: int
    path: bytes
    sender: bytes
    recip: bytes
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicReport:
    """One report of a classic spawner; `letter` is None when it is mangled."""

    delnum: int
    letter: Letter | None
    text: bytes


def render_command(command: Command) -> bytes:
    """The bytes that ask for one delivery.

    Raises: LocalProtocolError when a field holds a NUL or `delnum` is no byte.
    """
    fields = (command.path, command.sender, command.recip)
    if not 0 <= command.delnum <= 255 or any(b"\0" in each for each in fields):
        raise LocalProtocolError("a delivery that the classic wire cannot carry")
    return bytes((command.delnum,)) + b"".join(each + b"\0" for each in fields)


class CommandReader:
    """Cuts what send writes into commands, however it arrives."""

    __slots__ = ("_delnum", "_fields", "_is_cut", "_part")

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._delnum: int | None = None
        self._fields: list[bytes] = []
        self._part = bytearray()
        self._is_cut = False

    def feed(self, data: bytes) -> list[Command]:
        """The commands that are complete with `data`, in order."""
        found = []
        at = 0
        while at < len(data):
            if self._delnum is None:
                self._delnum = data[at]
                at += 1
                continue
            end = data.find(b"\0", at)
            self._keep(data[at : len(data) if end < 0 else end])
            if end < 0:
                break
            at = end + 1
            command = self._end_field(self._delnum)
            if command is not None:
                found.append(command)
        return found

    def _keep(self, piece: bytes) -> None:
        room = FIELD_MAX - len(self._part)
        self._part += piece[:room]
        self._is_cut = self._is_cut or len(piece) > room

    def _end_field(self, delnum: int) -> Command | None:
        self._fields.append(bytes(self._part))
        self._part.clear()
        if len(self._fields) < 3:
            return None
        path, sender, recip = self._fields
        is_cut = self._is_cut
        self._reset()
        return Command(
            delnum=delnum, path=path, sender=sender, recip=recip, is_cut=is_cut
        )


def render_report(delnum: int, letter: Letter, text: bytes) -> bytes:
    """The bytes of one report; `text` ends before its first NUL."""
    return bytes((delnum,)) + letter.value + text.partition(b"\0")[0] + b"\0"


class ReportReader:
    """Cuts what a spawner writes into reports, however it arrives."""

    __slots__ = ("_part",)

    def __init__(self) -> None:
        self._part = bytearray()

    def feed(self, data: bytes) -> list[ClassicReport]:
        """The reports that are complete with `data`, in order.

        The first byte of a report is a slot number and may be NUL. Bytes past
        REPORT_MAX, slot and letter included, are dropped.
        """
        found = []
        at = 0
        while at < len(data):
            if not self._part:
                self._part.append(data[at])
                at += 1
                continue
            end = data.find(b"\0", at)
            piece = data[at : len(data) if end < 0 else end]
            self._part += piece[: REPORT_MAX - len(self._part)]
            if end < 0:
                break
            at = end + 1
            found.append(self._end())
        return found

    def _end(self) -> ClassicReport:
        whole = bytes(self._part)
        self._part.clear()
        return ClassicReport(
            delnum=whole[0], letter=_LETTERS.get(whole[1:2]), text=whole[2:]
        )


class CleanOp(Enum):
    """What a cleaner is asked to remove, as its command begins."""

    FOOP = b"foop/"
    """intd/N, then mess/N."""
    TODO = b"todo/"
    """intd/N, then todo/N."""


CLEAN_DONE = b"+"
CLEAN_FAILED = b"!"
CLEAN_MALFORMED = b"x"


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanCommand:
    """One command to a cleaner."""

    op: CleanOp
    messid: MessId


def render_clean(command: CleanCommand) -> bytes:
    """The bytes of one cleaner command."""
    return b"%b%d\0" % (command.op.value, command.messid)


@dataclass(slots=True)
class CleanReader:
    """Cuts what send writes to a cleaner into commands."""

    _part: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[CleanCommand | None]:
        """The commands that are complete with `data`; None stands for a malformed
        one, to be answered with exactly one CLEAN_MALFORMED (unlike qmail-clean,
        which answers once per bad byte and loses step)."""
        *ended, rest = data.split(b"\0")
        found = []
        for piece in ended:
            self._keep(piece)
            found.append(_parse_clean(bytes(self._part)))
            self._part.clear()
        self._keep(rest)
        return found

    def _keep(self, piece: bytes) -> None:
        # One byte more than allowed is kept, so that what is too long is seen.
        self._part += piece[: CLEAN_MAX - len(self._part)]


def _parse_clean(line: bytes) -> CleanCommand | None:
    digits = line[5:]
    if not CLEAN_MIN <= len(line) + 1 <= CLEAN_MAX or not digits.isdigit():
        return None
    try:
        op = CleanOp(line[:5])
    except ValueError:
        return None
    messid = int(digits)
    if messid >= _MESSID_END:
        return None
    return CleanCommand(op=op, messid=MessId(messid))
