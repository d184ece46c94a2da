r"""sendmail's alias files, turned into what fastforward reads.

Beside sendmail's `name: value, value` there are `user@host:` and `@host:` for one
virtual domain; `name:` alone counts for every host that gets there.
Source: newaliases(1), newinclude(1), newaliases.c, newinclude.c. Unlike them: a
`/file` becomes a program that appends to it; `owner-` is known in any case; a last
line without a line end counts; a colon ends an alias also after `user@`; a list that
a list includes is its `.bin`, where newinclude.c names the text, in which fastforward
finds nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qsend.core.errors import PermFail, TempFail
from qsend.formats.addressitems import Domains, Include, Item, Name, complete
from qsend.formats.addressitems import parse_items as _parse_items

ADDRESS_MAX = 800
"""Longest address in a table or list (setforward(1))."""

_OWNER = b"owner-"
_SHOWN_MAX = 200
_DISCARD = b"|exit 0"


def parse_aliases(content: bytes, domains: Domains) -> Iterator[tuple[bytes, bytes]]:
    """The records (key, value) of an alias file, top to bottom.

    An alias given twice makes two records, of which readers find the first.
    Raises: TempFail at a line that means nothing, with its number; PermFail at an
        address longer than ADDRESS_MAX.
    """
    for number, line in _logical_lines(content):
        items = _items(number, line)
        if items:
            yield from _records(number, line, items, domains)


def parse_include(content: bytes, domains: Domains) -> Iterator[bytes]:
    """The commands, without their NULs, of a list that `:include:` names.

    Programs and files have no place in it: whoever may write the list could do
    anything that whoever delivers may.
    Raises: TempFail as parse_aliases does.
    """
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line[:1] == b"#":
            continue
        for item in _items(number, line):
            if isinstance(item, Include):
                # Some wrote `.bin` themselves, because newinclude.c does not.
                path = item.path.removesuffix(b".bin")
                yield _list_path(number, path)
            elif item.text:
                yield b"&" + _listed(number, item, domains)


def _logical_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(number of its first line, text) of each alias; comments are left out.

    A line that is empty or starts with a blank continues the one before it, also a
    comment. Source: newaliases.c main().
    """
    start, parts = 1, [b""]
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line[:1] in (b" ", b"\t"):
            parts.append(line)
        elif line not in (b"", b"\r"):
            yield from _unless_comment(start, parts)
            start, parts = number, [line]
    yield from _unless_comment(start, parts)


def _unless_comment(start: int, parts: list[bytes]) -> Iterator[tuple[int, bytes]]:
    if parts[0][:1] != b"#":
        yield start, b"".join(part.removesuffix(b"\r") for part in parts)


def _items(number: int, line: bytes) -> list[Item]:
    try:
        return _parse_items(line)
    except PermFail as exc:
        raise _unparsable(number, line, f" ({exc})") from exc


def _unparsable(number: int, line: bytes, why: str = "") -> TempFail:
    shown = line[:_SHOWN_MAX].decode("utf-8", "backslashreplace")
    return TempFail(f"unable to parse line {number}: {shown}{why}")


def _records(
    number: int, line: bytes, items: list[Item], domains: Domains
) -> Iterator[tuple[bytes, bytes]]:
    *values, target = items
    if not values or not isinstance(target, Name) or _is_special(target):
        raise _unparsable(number, line)
    alias = _alias(number, target, domains)
    if alias.key.lower().startswith(_OWNER):
        yield b"?" + alias.key[len(_OWNER) :].lower(), alias.address
    commands = _commands(number, values, domains)
    yield b":" + alias.key.lower(), b"".join(each + b"\0" for each in commands)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alias:
    """`key` as it is looked up, `user@` for any host; `address` complete."""

    key: bytes
    address: bytes


def _alias(number: int, name: Name, domains: Domains) -> _Alias:
    if not name.text:
        raise TempFail(f"line {number}: empty recipient addresses not permitted")
    address = complete(name, domains)
    if len(address) > ADDRESS_MAX:
        raise PermFail(
            f"line {number}: addresses over {ADDRESS_MAX} bytes are not permitted"
        )
    key = name.text if name.has_at else name.text + b"@"
    return _Alias(key=key, address=address)


def _commands(number: int, values: list[Item], domains: Domains) -> list[bytes]:
    """The commands in newaliases.c's order: an address comes when the next does."""
    commands: list[bytes] = []
    address: list[bytes] = []
    for item in values:
        if isinstance(item, Include):
            commands.append(_list_path(number, item.path))
        elif _is_special(item):
            commands.append(_special(item.text))
        else:
            commands += address
            address = [b"&" + _alias(number, item, domains).address]
    return commands + address


def _is_special(name: Name) -> bool:
    return not name.has_at and name.text[:1] in (b"|", b"/")


def _special(text: bytes) -> bytes:
    """The command for a program or a file.

    A file has no command of its own: one that starts with `/` names a list. It is
    run as a program, so that every fastforward can.
    """
    if text[:1] == b"|":
        return b"!" + text[1:]
    if text == b"/dev/null":
        return _DISCARD
    return b"|mboxdeliver '%b'" % text.replace(b"'", b"'\\''")


def _list_path(number: int, path: bytes) -> bytes:
    """The path of the list that newinclude makes of the file."""
    if not path:
        raise TempFail(f"line {number}: empty :include: filenames not permitted")
    return path + b".bin" if path[:1] in (b".", b"/") else b"./" + path + b".bin"


def _listed(number: int, name: Name, domains: Domains) -> bytes:
    if _is_special(name):
        shown = name.text.decode("utf-8", "backslashreplace")
        kind = "program" if name.text[:1] == b"|" else "file"
        raise TempFail(f"line {number}: {kind} delivery {shown} not supported")
    address = complete(name, domains)
    if len(address) > ADDRESS_MAX:
        raise TempFail(f"line {number}: addresses must be under {ADDRESS_MAX} bytes")
    if address[-1:] in (b" ", b"\t"):
        raise TempFail(
            f"line {number}: spaces and tabs not permitted at ends of addresses"
        )
    return address
