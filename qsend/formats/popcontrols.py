"""The control files of POP3 and logins, all of them as one value.

control/pop3listen decides whether there are POP3 processes at all. The private key in
control/servercert.pem goes to the listener alone.
Source: docs/man/qmail-control.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qsend.core.errors import ConfigError, ConfigFault
from qsend.formats.control import number_files
from qsend.formats.listeners import (
    CERTIFICATE,
    TLS,
    Listener,
    check_certificate,
    parse_listeners,
)

NUMBERS: Mapping[str, tuple[int, int, int]] = {
    "timeoutpop3d": (1200, 1, 86400),
    "concurrencypop3d": (200, 1, 10000),
    "concurrencypop3dperip": (20, 1, 10000),
    "pop3plain": (1, 0, 1),
    "systemlogins": (0, 0, 1),
    "loglogins": (1, 0, 1),
}
"""The one-number files: default, least, most."""
LISTEN = "pop3listen"
LISTEN_WORDS = (TLS,)
POP_FILES = frozenset({LISTEN, CERTIFICATE, *NUMBERS})
"""Names of the control files that PopSettings is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PopSettings:
    """How POP3 is served.

    `timeout_s` is how long a silent client is kept; `allows_plain`: USER and PASS are
    taken without TLS; `certificate` the PEM text of
    certificate, chain and private key, b"" without TLS.
    """

    listeners: tuple[Listener, ...] = ()
    timeout_s: int = 1200
    sessions_max: int = 200
    sessions_per_address: int = 20
    allows_plain: bool = True
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
    numbers = number_files(files, NUMBERS, faults)
    listeners = parse_listeners(LISTEN, files.get(LISTEN, b""), LISTEN_WORDS, faults)
    check_certificate(files, LISTEN, listeners, faults)
    if faults:
        raise ConfigError(faults)
    return PopSettings(
        listeners=listeners,
        timeout_s=numbers["timeoutpop3d"],
        sessions_max=numbers["concurrencypop3d"],
        sessions_per_address=numbers["concurrencypop3dperip"],
        allows_plain=bool(numbers["pop3plain"]),
        system_logins=bool(numbers["systemlogins"]),
        log_logins=bool(numbers["loglogins"]),
        certificate=files.get(CERTIFICATE, b""),
    )
