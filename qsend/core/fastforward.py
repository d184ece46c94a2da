"""fastforward: whom a forwarding table sends one message to.

The table maps `:user@host` to commands and `?user@host` to an owner's address.
Must not read it: `expand` says what it wants to know, and goes on with the answer.
Source: fastforward(1), setforward(1), fastforward.c (doorigrecip, dorecip, dodata).
Unlike it: a record or list that is damaged is an error, where fastforward.c leaves
out what it does not understand and loses mail.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from qsend.core.errors import TempFail

COMMAND_MAX = 900
"""Longest `&address` command that is obeyed (fastforward.c); what writes tables
refuses addresses over 800 bytes."""

_PROGRAMS = (b"|", b"!")
_LISTS = (b".", b"/")
_NO_OWNER = (b"", b"#@[]")


@dataclass(frozen=True, slots=True)
class Lookup:
    """Answer with the record of `key`, None when there is none."""

    key: bytes


@dataclass(frozen=True, slots=True)
class ReadList:
    """Answer with the content of the binary list file at `path`."""

    path: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """Run `command`, which starts with `|` (message) or `!` (preline); answer None."""

    command: bytes


Step = Lookup | ReadList | Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """What the table says of one recipient.

    `is_found` is False when it says nothing. `recips` may be empty: all was done by
    programs, or led in a circle. They are in the order of fastforward.c's envelope.
    """

    is_found: bool
    sender: bytes
    recips: tuple[bytes, ...] = ()


def parse_commands(record: bytes) -> list[bytes]:
    """The commands of a record or binary list, each without its NUL.

    `b"&a@b\\0|prog\\0"` gives `[b"&a@b", b"|prog"]`.
    Raises: TempFail when it does not end in NUL, or a command is of no known kind or
        an address longer than COMMAND_MAX: the file is damaged or being written.
    """
    if not record:
        return []
    *commands, rest = record.split(b"\0")
    if rest:
        raise TempFail("a forwarding record is cut short")
    for command in commands:
        if command[:1] not in (b"&", *_PROGRAMS, *_LISTS):
            raise TempFail("a forwarding record has a command of an unknown kind")
        if command[:1] == b"&" and len(command) >= COMMAND_MAX:
            raise TempFail(f"a forwarding record has an address over {COMMAND_MAX}")
    return commands


def expand(
    recipient: bytes, sender: bytes
) -> Generator[Step, bytes | None, Forwarding]:
    """Follow the table from one recipient until only addresses are left.

    The recipient itself is looked up as `user@host`, `@host` and `user@`, addresses
    found in the table exactly, all without regard to case. An address that has an
    owner of its own is not followed: it gets a message of its own, whose bounces go
    to that owner. Each command counts once.

    Args:
        recipient: as in the envelope.
        sender: envelope sender; an owner replaces it, unless it is that of a bounce.
    Returns: (of the generator) the Forwarding; `send` the answer to each step.
    Raises: TempFail for a damaged record.
    """
    if sender not in _NO_OWNER:
        owner = yield from _find(b"?", recipient)
        sender = sender if owner is None else owner
    record = yield from _find(b":", recipient)
    if record is None:
        return Forwarding(is_found=False, sender=sender)
    recips: list[bytes] = []
    done = {recipient}
    waiting = yield from _obey(record)
    while waiting:
        command = waiting.pop()
        if command in done:
            continue
        done.add(command)
        if command[:1] in _LISTS:
            content = yield ReadList(command)
            waiting += _addresses(content or b"")
            continue
        address = command[1:]
        found = yield from _find_exact(address)
        if found is None:
            recips.append(address)
        else:
            waiting += yield from _obey(found)
    return Forwarding(is_found=True, sender=sender, recips=tuple(reversed(recips)))


def _find(kind: bytes, address: bytes) -> Generator[Step, bytes | None, bytes | None]:
    """The record of the address, its host, or its user."""
    user, at, host = address.rpartition(b"@")
    keys = [address, at + host, user + at] if at else [address]
    for key in keys:
        record = yield Lookup((kind + key).lower())
        if record is not None:
            return record
    return None


def _find_exact(address: bytes) -> Generator[Step, bytes | None, bytes | None]:
    """The record to go on with; None for an address to be forwarded to."""
    owner = yield Lookup((b"?" + address).lower())
    if owner is not None:
        return None
    return (yield Lookup((b":" + address).lower()))


def _obey(record: bytes) -> Generator[Step, bytes | None, list[bytes]]:
    """Run the programs of a record, in order; its other commands."""
    others = []
    for command in parse_commands(record):
        if command[:1] in _PROGRAMS:
            yield Run(command)
        else:
            others.append(command)
    return others


def _addresses(content: bytes) -> list[bytes]:
    """The commands of a list file, in which a program has no place."""
    commands = parse_commands(content)
    if any(command[:1] in _PROGRAMS for command in commands):
        raise TempFail("a list file names a program")
    return commands
