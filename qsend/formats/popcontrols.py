"""The control files of POP3 and logins, all of them as one value.

control/pop3listen decides whether there are POP3 processes at all. The private key in
control/servercert.pem goes to the listener alone.
Source: docs/man/qmail-control.5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.mx import canonical
from qsend.formats.control import lines, number_file

NUMBERS: Mapping[str, tuple[int, int, int]] = {
    "timeoutpop3d": (1200, 1, 86400),
    "concurrencypop3d": (200, 1, 10000),
    "concurrencypop3dperip": (20, 1, 10000),
    "systemlogins": (0, 0, 1),
    "loglogins": (1, 0, 1),
}
"""The one-number files: default, least, most."""
LISTEN = "pop3listen"
CERTIFICATE = "servercert.pem"
POP_FILES = frozenset({LISTEN, CERTIFICATE, *NUMBERS})
"""Names of the control files that PopSettings is made of."""
_LISTENERS_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PopListener:
    """An address to listen at; `is_tls`: TLS from the first byte on."""

    address: str
    port: int
    is_tls: bool

    def __str__(self) -> str:
        shown = f"[{self.address}]" if ":" in self.address else self.address
        return f"{shown}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PopSettings:
    """How POP3 is served.

    `timeout_s` is how long a silent client is kept; `certificate` the PEM text of
    certificate, chain and private key, b"" without TLS.
    """

    listeners: tuple[PopListener, ...] = ()
    timeout_s: int = 1200
    sessions_max: int = 200
    sessions_per_address: int = 20
    system_logins: bool = False
    log_logins: bool = True
    certificate: bytes = field(default=b"", repr=False)


def parse_pop(files: Mapping[str, bytes]) -> PopSettings:
    """The settings of a snapshot.

    Args:
        files: name of each control file that exists, and its content.
    Raises: ConfigError with every fault in any of POP_FILES. Whether certificate and
        key can be used is found out by who loads them.
    """
    faults: list[ConfigFault] = []
    numbers = {
        name: number_file(name, files.get(name), bounds, faults)
        for name, bounds in NUMBERS.items()
    }
    listeners = _listeners(files.get(LISTEN, b""), faults)
    certificate = files.get(CERTIFICATE, b"")
    if CERTIFICATE in files:
        faults += [
            _fault(CERTIFICATE, 0, f"has no {part.decode()}")
            for part in (b"CERTIFICATE", b"PRIVATE KEY")
            if not re.search(b"(?m)^-----BEGIN ([A-Z]+ )*%b-----" % part, certificate)
        ]
    elif any(each.is_tls for each in listeners):
        faults.append(_fault(LISTEN, 0, f"says tls, but there is no {CERTIFICATE}"))
    if faults:
        raise ConfigError(faults)
    return PopSettings(
        listeners=listeners,
        timeout_s=numbers["timeoutpop3d"],
        sessions_max=numbers["concurrencypop3d"],
        sessions_per_address=numbers["concurrencypop3dperip"],
        system_logins=bool(numbers["systemlogins"]),
        log_logins=bool(numbers["loglogins"]),
        certificate=certificate,
    )


def _listeners(content: bytes, faults: list[ConfigFault]) -> tuple[PopListener, ...]:
    found: dict[str, PopListener] = {}
    for number, line in lines(content):
        match = re.fullmatch(
            r"\s*(?:\[([^]]+)\]|([^:\s]+)):([0-9]{1,5})(\s+tls)?",
            line.decode("latin-1"),
        )
        listener = None if match is None else _listener(*match.groups())
        if listener is None:
            problem = "expected address:port or address:port tls"
            faults.append(_fault(LISTEN, number, problem))
        elif str(listener) in found:
            faults.append(_fault(LISTEN, number, "is there twice"))
        else:
            found[str(listener)] = listener
    if len(found) > _LISTENERS_MAX:
        faults.append(_fault(LISTEN, 0, f"more than {_LISTENERS_MAX} lines"))
    return tuple(found.values())


def _listener(
    bracketed: str | None, plain: str | None, port: str, tls: str | None
) -> PopListener | None:
    try:
        address = canonical(bracketed or plain or "")
    except ValueError:
        return None
    if not 0 < int(port) < 65536:
        return None
    return PopListener(address=address, port=int(port), is_tls=tls is not None)


def _fault(name: str, line: int, problem: str) -> ConfigFault:
    return ConfigFault(file=f"control/{name}", line=line, problem=problem)
