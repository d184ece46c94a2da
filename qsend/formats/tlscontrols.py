"""The control files of TLS and AUTH towards other servers, as one value.

control/tlspolicy: `destination:level` or `destination:verify:name,name`, with
destinations as in smtproutes (`.suffix`, empty for all others, `[v6]`).
control/smtpauth: `relay:user:password`; the password may hold colons.
control/tlscafile and clientcert.pem are PEM; whether TLS can use them is tried in
sysio/tlscontext. smtpauth and clientcert.pem are secrets, of remote alone.
Source: docs/NETWORK.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.tlspolicy import Level, Login, Rule
from qsend.formats.controllines import lines

TLS_FILES = frozenset({"tlspolicy", "tlscafile", "clientcert.pem", "smtpauth"})
"""Names of the control files that TlsControls is made of."""

CREDENTIAL_MAX = 255
"""Longest user and password, in bytes: AUTH's line must have room for both."""

_LEVELS = ", ".join(level.value for level in Level)
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
_NAME = re.compile(rb"\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsControls:
    """Keys are lower case, without brackets; `ca` and `cert` PEM or b""."""

    policies: Mapping[bytes, Rule] = field(default_factory=dict)
    logins: Mapping[bytes, Login] = field(default_factory=dict, repr=False)
    ca: bytes = b""
    cert: bytes = field(default=b"", repr=False)


class _Problem(Exception):
    """What is wrong with one line."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


def parse_tls(files: Mapping[str, bytes]) -> TlsControls:
    """The settings of a snapshot; each file may be absent.

    Args:
        files: name of each control file that exists, and its content.
    Raises: ConfigError with the first fault of each of TLS_FILES. No fault shows
        what is in a secret file.
    """
    faults: list[ConfigFault] = []

    def read(name: str, parse: Callable[[bytes], object]) -> object:
        try:
            content = files[name]
            if b"\0" in content:
                raise _Problem(0, "expected text, found a NUL byte")
            return parse(content)
        except _Problem as exc:
            faults.append(
                ConfigFault(file=f"control/{name}", line=exc.line, problem=exc.problem)
            )
            return None

    parsers: Mapping[str, tuple[str, Callable[[bytes], object]]] = {
        "tlspolicy": ("policies", _policies),
        "smtpauth": ("logins", _logins),
        "tlscafile": ("ca", _ca),
        "clientcert.pem": ("cert", _cert),
    }
    values = {
        attribute: read(name, parse)
        for name, (attribute, parse) in parsers.items()
        if name in files
    }
    if faults:
        raise ConfigError(faults)
    # Each parser returns the type of its field; mypy cannot see through the table.
    return TlsControls(**values)  # type: ignore[arg-type]


def _policies(content: bytes) -> dict[bytes, Rule]:
    found: dict[bytes, Rule] = {}
    for number, line in lines(content):
        key, rest = _destination(number, line)
        if key in found:
            raise _Problem(number, "the destination has a line already")
        word, colon, names = rest.partition(b":")
        try:
            level = Level(word.decode("ascii", "replace"))
        except ValueError:
            raise _Problem(
                number, f"expected one of {_LEVELS} after the colon"
            ) from None
        if colon and level is not Level.VERIFY:
            raise _Problem(number, "only verify takes names")
        found[key] = Rule(level=level, names=_names(number, names) if colon else ())
    return found


def _names(number: int, text: bytes) -> tuple[bytes, ...]:
    names = tuple(name.strip(b" \t").lower() for name in text.split(b","))
    if not all(_NAME.fullmatch(name) for name in names):
        raise _Problem(number, "expected names, .suffixes or addresses after verify:")
    return names


def _destination(number: int, line: bytes) -> tuple[bytes, bytes]:
    """(key, what follows its colon)."""
    if line[:1] == b"[":
        key, _, rest = line[1:].partition(b"]")
        colon, rest = rest[:1], rest[1:]
    else:
        key, colon, rest = line.partition(b":")
    if colon != b":":
        raise _Problem(number, "expected a colon after the destination")
    return key.lower(), rest


def _logins(content: bytes) -> dict[bytes, Login]:
    found: dict[bytes, Login] = {}
    for number, line in lines(content):
        relay, rest = _destination(number, line)
        user, colon, password = rest.partition(b":")
        if not relay or not colon or not user or not password:
            raise _Problem(number, "expected relay:user:password")
        if max(len(user), len(password)) > CREDENTIAL_MAX:
            raise _Problem(number, f"longer than {CREDENTIAL_MAX} bytes")
        if relay in found:
            raise _Problem(number, "the relay has a line already")
        found[relay] = Login(user=user, password=password)
    return found


def _ca(content: bytes) -> bytes:
    if _CERTIFICATE not in content:
        raise _Problem(0, "expected certificates in PEM")
    return content


def _cert(content: bytes) -> bytes:
    if _CERTIFICATE not in content or not _KEY.search(content):
        raise _Problem(0, "expected a certificate and its private key in PEM")
    return content
