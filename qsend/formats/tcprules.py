"""Access rules as ucspi-tcp writes them: lines of text, and records of a cdb.

Whatever tcprules takes gives the records that tcprules gives, in its order. Added are
networks, `10.0.0.0/8:` and `[2001:db8::/32]:`, and addresses of IPv6 in brackets; a
record for each IP version tells which prefix lengths there are, and tcpserver never
asks for it.
Source: ucspi-tcp tcprules.c, rules.c; tcprules(1); docs/NETWORK.md.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from qsend.core.access import Rule
from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.mx import canonical

SERVICES = ("smtp", "qmtp", "qmqp", "pop3")
"""The services that have rules; submission has those of smtp."""
LINE_MAX = 65536
"""Longest line taken; the variables of a rule are a few hundred bytes."""
LENGTHS_KEYS: Mapping[int, bytes] = {4: b"/4", 6: b"/6"}
"""The records that list prefix lengths, by IP version."""

_ALLOW, _DENY = b"allow", b"deny"
_COMPONENT_MAX = 255
_BLANKS = b" \t\n"
_BRACKETED = re.compile(rb"([^:\[=]*@)?\[([^\]]*)\]:")
_IPV4_NETWORK = re.compile(rb"[0-9.]+/[0-9]+")
_RANGE = re.compile(rb"(.*?)([^.]*)-([^.]*)(.*)", re.DOTALL)
_NUMBER_MAX = 10**9

Warn = Callable[[int, str], None]


class _Unparsable(Exception):
    """What is wrong with a line; `records` adds where it is."""


def rules_name(service: str) -> str:
    """The control file with the rules of one of SERVICES, as tcprules makes it."""
    return f"tcp.{service}.cdb"


def records(
    lines: Iterable[bytes], file: str, warn: Warn = lambda _number, _problem: None
) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a cdb, as tcprules would write them.

    Args:
        lines: the source, each with or without its line end, none cut.
        file: what the source is called in errors.
        warn: told the number of a line that tcprules passes over in silence, and why.
    Raises: ConfigError at the first line that cannot be understood.
    """
    lengths: dict[int, set[int]] = {4: set(), 6: set()}
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip(_BLANKS)
        if line[:1] == b"#" or not line:
            continue
        try:
            split = _split(line)
            if split is None:
                warn(number, "has no colon and is ignored")
                continue
            address, instructions = split
            value = render_rule(_parse_instructions(instructions))
            keys = _keys(address, lengths)
            if not keys:
                warn(number, "names a range without addresses and is ignored")
            for key in keys:
                yield key, value
        except _Unparsable as exc:
            fault = ConfigFault(file=file, line=number, problem=str(exc))
            raise ConfigError([fault]) from None
    for version, key in LENGTHS_KEYS.items():
        if lengths[version]:
            longest_first = sorted(lengths[version], reverse=True)
            yield key, b"".join(b"%d\0" % bits for bits in longest_first)


def parse_rule(value: bytes) -> Rule:
    """The instructions in a record. Unknown parts are passed over."""
    parts = value.split(b"\0")[:-1]
    variables = []
    for part in parts:
        name, equals, text = part[1:].partition(b"=")
        if part[:1] == b"+" and equals:
            variables.append((name, text))
    denied = any(part[:1] == b"D" for part in parts)
    return Rule(is_allowed=not denied, variables=tuple(variables))


def render_rule(rule: Rule) -> bytes:
    """The value of a rule's record."""
    start = b"" if rule.is_allowed else b"D\0"
    return start + b"".join(b"+%b=%b\0" % pair for pair in rule.variables)


def parse_lengths(value: bytes | None, version: int, file: str) -> tuple[int, ...]:
    """The prefix lengths that a record of LENGTHS_KEYS lists; none without it.

    Args:
        version: of IP, the key's.
        file: what the database is called in errors.
    Raises: ConfigError when it is none of ours.
    """
    most = 32 if version == 4 else 128
    if value is None:
        return ()
    words = value.removesuffix(b"\0").split(b"\0")
    if len(words) > most or not all(
        re.fullmatch(rb"[0-9]{1,3}", word) and int(word) < most for word in words
    ):
        problem = f"record {LENGTHS_KEYS[version].decode()} lists no prefix lengths"
        raise ConfigError([ConfigFault(file=file, line=0, problem=problem)])
    return tuple(int(word) for word in words)


def render_line(key: bytes, rule: Rule) -> bytes:
    """The source line, without its end, that gives a record with this key and rule.

    Raises: ValueError for what no line can give: a line end in key or value.
    """
    if b"\n" in key or key[:1] == b"#":
        raise ValueError("no rule of tcprules has this address")
    address = key
    info, at, ip = key.rpartition(b"@")
    if b":" in key:
        if b":" in info or b"=" in info:
            raise ValueError("no rule of tcprules has this address")
        address = b"%b%b[%b]" % (info, at, ip)
    words = [_ALLOW if rule.is_allowed else _DENY]
    words += [b"%b=%b" % (name, _quoted(text)) for name, text in rule.variables]
    return b"%b:%b" % (address, b",".join(words))


def _quoted(text: bytes) -> bytes:
    if b"\n" in text:
        raise ValueError("a value with a line end cannot be written")
    for mark in b"\"'/%#!|~^`@&*+:;<>?_" + bytes(range(33, 127)):
        if mark not in text:
            return b"%c%b%c" % (mark, text, mark)
    raise ValueError("a value with every delimiter cannot be written")


def _split(line: bytes) -> tuple[bytes, bytes] | None:
    """(address, instructions), or None where there is no colon."""
    bracketed = _BRACKETED.match(line)
    if bracketed is not None:
        info, inside = bracketed[1] or b"", bracketed[2]
        if b"/" in inside and not info:
            return _network(inside), line[bracketed.end() :]
        return info + _address(inside), line[bracketed.end() :]
    address, colon, instructions = line.partition(b":")
    if not colon:
        return None
    if _IPV4_NETWORK.fullmatch(address):
        address = _network(address)
    return address, instructions


def _address(text: bytes) -> bytes:
    try:
        return canonical(text.decode("ascii", "replace")).encode()
    except ValueError:
        raise _Unparsable(f"expected an IP address, found [{_shown(text)}]") from None


def _network(text: bytes) -> bytes:
    """The canonical network; one with all bits is the address itself."""
    try:
        network = ipaddress.ip_network(text.decode("ascii", "replace"))
    except ValueError as exc:
        problem = str(exc) if "host bits" in str(exc) else "expected address/length"
        raise _Unparsable(f"{problem}, found {_shown(text)}") from None
    if network.prefixlen == network.max_prefixlen:
        return _address(str(network.network_address).encode())
    return str(network).encode()


def _keys(address: bytes, lengths: dict[int, set[int]]) -> list[bytes]:
    """The key, or those of a range; a network adds its length to `lengths`."""
    if b"\0" in address:
        raise _Unparsable("expected text, found a NUL byte")
    _, slash, bits = address.rpartition(b"/")
    if slash and (b":" in address or _IPV4_NETWORK.fullmatch(address)):
        lengths[6 if b":" in address else 4].add(int(bits))
        return [address]
    if b"=" in address or b"@" in address or b"-" not in address:
        return [address]
    found = _RANGE.fullmatch(address)
    assert found is not None  # it has a hyphen
    left, low, high, right = found.groups()
    numbers = range(_number(low), min(_number(high), _COMPONENT_MAX) + 1)
    return [b"%b%d%b" % (left, number, right) for number in numbers]


def _number(digits: bytes) -> int:
    """A bound of a range; tcprules takes one that is missing for 0."""
    if digits.lstrip(b"0123456789"):
        raise _Unparsable(f"expected a number in the range, found {_shown(digits)!r}")
    return min(int(digits[-20:] or b"0"), _NUMBER_MAX)


def _parse_instructions(text: bytes) -> Rule:
    for word, is_allowed in ((_DENY, False), (_ALLOW, True)):
        if text.startswith(word):
            return Rule(
                is_allowed=is_allowed,
                variables=tuple(_variables(text[len(word) :])),
            )
    raise _Unparsable(f"expected allow or deny, found {_shown(text)!r}")


def _variables(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The variables; the byte after `=` delimits the value."""
    if b"\0" in text:
        raise _Unparsable("expected text, found a NUL byte")
    while text:
        name, equals, rest = text[1:].partition(b"=")
        value, end, more = rest[1:].partition(rest[:1]) if rest else (b"", b"", b"")
        if text[:1] != b"," or not equals or not end:
            raise _Unparsable(f'expected ,NAME="value", found {_shown(text)!r}')
        yield name, value
        text = more


def _shown(text: bytes) -> str:
    return text[:60].decode("ascii", "backslashreplace")
