"""Control files: one line, a list, a number, or `key:value` lines.

`parse_controls` turns a whole snapshot of the control directory into one frozen
Controls, or says everything that is wrong with it. Unlike qmail, a number file
without a number and a `key:value` line without a colon are errors: a typo must
not silently become a default.
Source: qmail-control(5), control.c, constmap.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.family import SQL_MARK
from qsend.core.mx import canonical
from qsend.formats.controllines import lines, one_line

_DIGITS_MAX = 10


class Durability(Enum):
    """How much is synced before something counts as done."""

    FULL = "full"
    QMAIL = "qmail"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where mail for a domain goes instead of its MX; port 0 means 25."""

    host: bytes
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """One DNS server."""

    host: str
    port: int = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """Every control file qsend reads, parsed; keys of maps are lower case.

    Numbers are seconds, bytes or counts as the file's manual says. `me` is b""
    when absent. `smtproutes` maps a domain, a `.suffix` or b"" to a route, None
    standing for "by MX". `has_sql` says that there is a database to be asked.
    """

    generation: int = 0
    me: bytes = b""
    bouncefrom: bytes = b"MAILER-DAEMON"
    bouncehost: bytes = b"bouncehost"
    concurrencylocal: int = 10
    concurrencyremote: int = 20
    concurrencyperhost: int = 20
    concurrencyperuser: int = 10
    doublebouncehost: bytes = b"doublebouncehost"
    doublebounceto: bytes = b"postmaster"
    durability: Durability = Durability.FULL
    envnoathost: bytes = b"envnoathost"
    has_sql: bool = False
    helohost: bytes = b""
    locals: frozenset[bytes] = frozenset()
    patrn: int = 0o002
    percenthack: frozenset[bytes] = frozenset()
    queuelifetime: int = 604800
    queueminfree: int = 1 << 20
    resolvers: tuple[Resolver, ...] = ()
    smtproutes: Mapping[bytes, Route | None] = field(default_factory=dict)
    timeoutconnect: int = 60
    timeoutremote: int = 1200
    timeoutterm: int = 60
    virtualdomains: Mapping[bytes, bytes] = field(default_factory=dict)


class _Problem(Exception):
    """What is wrong with one line; `_read` adds the file's name."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


def _number(content: bytes, base: int = 10, most: int = 2**31 - 1) -> int:
    text = one_line(content)
    try:
        value = int(text, base) if text.isalnum() else -1
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        shown = text[:40].decode("ascii", "backslashreplace")
        kind = "an octal number" if base == 8 else "a number"
        raise _Problem(1, f"expected {kind} from 0 to {most}, found {shown!r}")
    return value


def number_file(
    name: str,
    content: bytes | None,
    bounds: tuple[int, int, int],
    faults: list[ConfigFault],
) -> int:
    """The number in control/`name`, or its default where there is no file.

    Args:
        bounds: default, least, most.
        faults: gets one more when the file has no such number.
    """
    default, least, most = bounds
    if content is None:
        return default
    text = one_line(content)
    if text.isdigit() and len(text) <= _DIGITS_MAX and least <= int(text) <= most:
        return int(text)
    shown = text[:40].decode("ascii", "backslashreplace")
    problem = f"expected a number from {least} to {most}, found {shown!r}"
    faults.append(ConfigFault(file=f"control/{name}", line=1, problem=problem))
    return default


def number_files(
    files: Mapping[str, bytes],
    bounds: Mapping[str, tuple[int, int, int]],
    faults: list[ConfigFault],
) -> dict[str, int]:
    """Name to number of each of `bounds`, as number_file has it."""
    return {
        name: number_file(name, files.get(name), bounds[name], faults)
        for name in bounds
    }


def _octal(content: bytes) -> int:
    return _number(content, 8, 0o777)


def _name(content: bytes) -> bytes:
    text = one_line(content)
    if not text or any(byte <= 32 or byte == 127 for byte in text):
        raise _Problem(1, "expected one name without blanks")
    return text


def _local_part(content: bytes) -> bytes:
    """A name in front of an `@`; blanks are fine, they get quoted."""
    text = one_line(content)
    if not text or any(byte < 32 or byte == 127 for byte in text):
        raise _Problem(1, "expected one name without control characters")
    return text


def _names(content: bytes) -> frozenset[bytes]:
    return frozenset(line.lower() for _, line in lines(content))


def _pairs(content: bytes) -> list[tuple[int, bytes, bytes]]:
    found = []
    for number, line in lines(content):
        key, colon, value = line.partition(b":")
        if not colon:
            raise _Problem(number, "expected key:value, found no colon")
        found.append((number, key.lower(), value))
    return found


def _virtualdomains(content: bytes) -> dict[bytes, bytes]:
    return {key: value for _, key, value in _pairs(content)}


def _smtproutes(content: bytes) -> dict[bytes, Route | None]:
    routes: dict[bytes, Route | None] = {}
    for number, key, value in _pairs(content):
        if not value:
            routes[key] = None
            continue
        host, port = _host_port(number, value)
        if not host:
            raise _Problem(number, "expected domain:relay[:port], found no relay")
        routes[key] = Route(host=host, port=25 if port is None else port)
    return routes


def _host_port(number: int, text: bytes) -> tuple[bytes, int | None]:
    """`host`, `host:port`, `[v6]`, `[v6]:port`; a host may be `[1.2.3.4]` too."""
    if text[:1] == b"[" and b"]" in text:
        host, _, rest = text[1:].partition(b"]")
        colon, port = rest[:1], rest[1:]
        if rest and colon != b":":
            raise _Problem(number, "expected [address]:port")
    else:
        host, colon, port = text.partition(b":")
    if not colon:
        return host, None
    if not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise _Problem(number, "expected a port from 1 to 65535 after the colon")
    return host, int(port)


def _resolvers(content: bytes) -> tuple[Resolver, ...]:
    found = []
    for number, line in lines(content):
        if line.count(b":") > 1 and line[:1] != b"[":
            line = b"[" + line + b"]"
        host, port = _host_port(number, line)
        try:
            address = canonical(host.decode("ascii", "replace"))
        except ValueError:
            raise _Problem(number, "expected address[:port], not a name") from None
        found.append(Resolver(host=address, port=port or 53))
    return tuple(found)


def _durability(content: bytes) -> Durability:
    text = one_line(content)
    try:
        return Durability(text.decode("ascii", "replace"))
    except ValueError:
        raise _Problem(1, "expected full, qmail or none") from None


_PARSERS: dict[str, Callable[[bytes], object]] = {
    "me": _name,
    "bouncefrom": _local_part,
    "bouncehost": _name,
    "concurrencylocal": _number,
    "concurrencyremote": _number,
    "concurrencyperhost": _number,
    "concurrencyperuser": _number,
    "doublebouncehost": _name,
    "doublebounceto": _local_part,
    "durability": _durability,
    "envnoathost": _name,
    "helohost": _name,
    "locals": _names,
    "patrn": _octal,
    "percenthack": _names,
    "queuelifetime": _number,
    "queueminfree": lambda content: _number(content, 10, 2**63 - 1),
    "resolvers": _resolvers,
    "smtproutes": _smtproutes,
    "timeoutconnect": _number,
    "timeoutremote": _number,
    "timeoutterm": _number,
    "virtualdomains": _virtualdomains,
}
_DEFAULT_ME = ("bouncehost", "doublebouncehost", "envnoathost", "helohost")

KNOWN = frozenset(_PARSERS)
"""Names of the control files that Controls is made of."""


def parse_controls(files: Mapping[str, bytes], generation: int = 0) -> Controls:
    """The parsed snapshot; files not in KNOWN are left to other readers.

    Args:
        files: name of each control file that exists, and its content.
        generation: number of the snapshot.
    Raises: ConfigError with every fault, also when neither me nor locals exists.
    """
    values: dict[str, object] = {}
    faults: list[ConfigFault] = []
    for name in sorted(KNOWN & files.keys()):
        try:
            if b"\0" in files[name]:
                raise _Problem(
                    files[name][: files[name].index(b"\0")].count(b"\n") + 1,
                    "expected text, found a NUL byte",
                )
            values[name] = _PARSERS[name](files[name])
        except _Problem as exc:
            faults.append(
                ConfigFault(file=f"control/{name}", line=exc.line, problem=exc.problem)
            )
    values["has_sql"] = "sqlserver" in files or SQL_MARK in files
    if "me" in values:
        for name in _DEFAULT_ME:
            values.setdefault(name, values["me"])
        me = values["me"]
        if isinstance(me, bytes):
            values.setdefault("locals", frozenset({me.lower()}))
    elif "locals" not in files and "me" not in files:
        faults.append(
            ConfigFault(
                file="control/me", line=0, problem="missing, and no control/locals"
            )
        )
    if faults:
        raise ConfigError(faults)
    return _build(values, generation)


def _build(values: Mapping[str, object], generation: int) -> Controls:
    # Each parser returns the type of its field; mypy cannot see through the table.
    return Controls(generation=generation, **values)  # type: ignore[arg-type]


def timeoutterm(files: Mapping[str, bytes]) -> int:
    """Of a snapshot that was found good; all of it that start itself needs."""
    given = {name: files[name] for name in files if name == "timeoutterm"}
    return parse_controls({"me": b"localhost", **given}).timeoutterm
