"""Dot-qmail: which file decides, what its lines say, who sends what they forward.

Must not open anything: the names are tried, and the instructions carried out, in
sysio.
Source: dot-qmail(5), qmail-local.c (qmesearch, main).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

_PREFIX = b".qmail"
_DEFAULT = b"default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One dot-qmail file name to try, relative to the home.

    `default` is the value of $DEFAULT if this file is the one, None when the
    variable does not apply.
    """

    name: bytes
    default: bytes | None


def base_name(dash: bytes, ext: bytes) -> bytes:
    """The file name of the full extension: `.qmail`, dash, and the safe extension.

    The extension comes from the sender: ASCII letters become lower case and every
    `.` becomes `:`, so that no `..` can arise. A `/` names a file in a
    subdirectory only where the dash, which the administrator wrote, already holds
    one (`-/` layouts); elsewhere it becomes `:` too. qmail-local.c keeps it
    always, which lets `user-a/b` reach any file below a directory `.qmail-a`.
    """
    return _PREFIX + dash + _safe(dash, ext)


def _safe(dash: bytes, ext: bytes) -> bytes:
    safe = ext.lower().replace(b".", b":")
    return safe if b"/" in dash else safe.replace(b"/", b":")


def candidates(dash: bytes, ext: bytes) -> Iterator[Candidate]:
    """The file names to try, best first.

    dash `-`, ext `a-b` gives `.qmail-a-b`, `.qmail-a-default`, `.qmail-default`.
    $DEFAULT keeps the case of `ext`.
    """
    safe = _safe(dash, ext)
    exact = ext[-len(_DEFAULT) :] if safe.endswith(_DEFAULT) else None
    yield Candidate(name=_PREFIX + dash + safe, default=exact)
    for cut in range(len(safe), -1, -1):
        if cut == 0 or safe[cut - 1 : cut] == b"-":
            yield Candidate(
                name=_PREFIX + dash + safe[:cut] + _DEFAULT, default=ext[cut:]
            )


@dataclass(frozen=True, slots=True)
class Maildir:
    """Deliver into the maildir at `path` (relative to the home, ends in `/`)."""

    path: bytes


@dataclass(frozen=True, slots=True)
class Mbox:
    """Append to the mbox file at `path` (relative to the home)."""

    path: bytes


@dataclass(frozen=True, slots=True)
class Program:
    """Run `command` with /bin/sh."""

    command: bytes


@dataclass(frozen=True, slots=True)
class Forward:
    """Send on to `address`, as it is written."""

    address: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """The file is wrong here: what came before is done, then a deferral.

    `reason` is report text.
    """

    reason: str


Instruction = Maildir | Mbox | Program | Forward | Refusal


def parse(content: bytes, *, forward_only: bool) -> Iterator[Instruction]:
    """The instructions of a dot-qmail file, top to bottom.

    Args:
        content: the file; a last line without LF counts.
        forward_only: the file's execute bit; a `+list` line has the same effect
            on the lines after it.
    Returns: at most one Refusal, and nothing after it. A NUL byte is refused:
        qmail would silently use what stands before it.
    """
    for number, raw in enumerate(content.removesuffix(b"\n").split(b"\n")):
        line = raw.rstrip(b" \t")
        if line == b"+list":
            forward_only = True
        instruction = _instruction(line, number == 0)
        if forward_only and isinstance(instruction, Maildir | Mbox | Program):
            kind = "prog" if isinstance(instruction, Program) else "file"
            instruction = Refusal(_FORWARD_ONLY.format(kind))
        if instruction is not None:
            yield instruction
        if isinstance(instruction, Refusal):
            return


_FORWARD_ONLY = "Uh-oh: .qmail has {} delivery but has x bit set. (#4.7.0)"


def _instruction(line: bytes, is_first: bool) -> Instruction | None:
    match line[:1]:
        case b"":
            blank = "Uh-oh: first line of .qmail file is blank. (#4.2.1)"
            return Refusal(blank) if is_first else None
        case b"#" | b"+":
            return None
        case _ if b"\0" in line:
            return Refusal("The .qmail file has a line with a NUL byte. (#4.2.1)")
        case b"|":
            return Program(line[1:])
        case b"." | b"/":
            return Maildir(line) if line.endswith(b"/") else Mbox(line)
        case b"&":
            return Forward(line[1:])
        case _:
            return Forward(line)


class Owner(Enum):
    """Which owner files stand beside the file of the full extension."""

    NONE = "none"
    PLAIN = "owner"
    """`-owner` exists."""
    VERP = "owner-default"
    """`-owner` and `-owner-default` exist."""


def new_sender(sender: bytes, local: bytes, domain: bytes, owner: Owner) -> bytes:
    """The envelope sender of what is forwarded, $NEWSENDER.

    Bounces (`b""`) and double bounces (`#@[]`) keep theirs. A list with an owner
    sends as `list-owner@domain`, or, one address per recipient, as
    `list-owner-@domain-@[]`. Source: qmail-local.c main(), addresses(5).
    """
    if sender in (b"", b"#@[]") or owner is Owner.NONE:
        return sender
    if owner is Owner.VERP:
        return local + b"-owner-@" + domain + b"-@[]"
    return local + b"-owner@" + domain


class Effect(Enum):
    """What a program's exit code means for the delivery."""

    NEXT = "go on with the next line"
    STOP = "success; skip the remaining lines"
    FAILURE = "failure"
    DEFERRAL = "deferral"


_FAILURE_CODES = frozenset({64, 65, 70, 76, 77, 78, 100, 112})


def effect(exit_code: int) -> Effect:
    """What the exit code of a `|` line means. Source: qmail-command(8)."""
    if exit_code == 0:
        return Effect.NEXT
    if exit_code == 99:
        return Effect.STOP
    return Effect.FAILURE if exit_code in _FAILURE_CODES else Effect.DEFERRAL
