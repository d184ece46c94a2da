"""The control files of the SMTP server, all of them as one value.

control/smtplisten decides whether there are smtpd processes at all; whose mail they
take is accesscontrols.py's.
Source: qmail-control(5), qmail-smtpd(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from qsend.core.errors import ConfigError, ConfigFault
from qsend.formats.control import number_files
from qsend.formats.controllines import lines, one_line
from qsend.formats.listeners import (
    CERTIFICATE,
    TLS,
    Listener,
    check_certificate,
    parse_listeners,
)
from qsend.formats.milters import MILTERS, Milter, parse_milters

NUMBERS: Mapping[str, tuple[int, int, int]] = {
    "timeoutsmtpd": (1200, 0, 86400),
    "databytes": (0, 0, 9_999_999_999),
    "concurrencysmtpd": (500, 1, 100_000),
    "concurrencysmtpdperip": (50, 1, 100_000),
    "maxrecipients": (1000, 1, 100_000),
    "maxsmtperrors": (20, 1, 100_000),
    "recipientcheck": (0, 0, 1),
    "smtpnames": (0, 0, 1),
}
"""The one-number files: default, least, most."""
LISTEN = "smtplisten"
SUBMISSION = "submission"
LISTEN_WORDS = (TLS, SUBMISSION)
"""The word for listeners at which only clients that log in, or have RELAYCLIENT, may
send."""
GREETING = "smtpgreeting"
PROXIES = "smtpproxies"
SMTPD_FILES = frozenset({LISTEN, GREETING, PROXIES, MILTERS, CERTIFICATE, *NUMBERS})
"""Names of the control files that SmtpdSettings is made of, besides me."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpdSettings:
    """How SMTP is served.

    `greeting` is b"" when neither control/smtpgreeting nor control/me says one.
    `sessions_max` is for all processes together, `sessions_per_address` for each.
    `proxies` are balancers that tell by the PROXY protocol whose client it is.
    """

    listeners: tuple[Listener, ...] = ()
    greeting: bytes = b""
    timeout_s: int = 1200
    databytes: int = 0
    sessions_max: int = 500
    sessions_per_address: int = 50
    recipients_max: int = 1000
    errors_max: int = 20
    checks_recipients: bool = False
    looks_up_names: bool = False
    proxies: tuple[Network, ...] = ()
    milters: tuple[Milter, ...] = ()
    certificate: bytes = field(default=b"", repr=False)

    def is_proxy(self, address: str) -> bool:
        """Whether a client is a balancer; `address` is canonical."""
        if not self.proxies:
            return False
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self.proxies)


def parse_smtpd(files: Mapping[str, bytes], me: bytes) -> SmtpdSettings:
    """The settings of a snapshot.

    Args:
        files: name of each control file that exists, and its content.
        me: control/me, b"" without.
    Raises: ConfigError with every fault in any of SMTPD_FILES. Whether certificate
        and key can be used is found out by who loads them.
    """
    faults: list[ConfigFault] = []
    numbers = number_files(files, NUMBERS, faults)
    listeners = parse_listeners(LISTEN, files.get(LISTEN, b""), LISTEN_WORDS, faults)
    check_certificate(files, LISTEN, listeners, faults)
    greeting = one_line(files[GREETING]) if GREETING in files else me
    if any(byte < 32 or byte > 126 for byte in greeting):
        faults.append(_fault(GREETING, 1, "expected printable text"))
    if listeners and not greeting:
        faults.append(_fault(GREETING, 0, "missing, and no control/me"))
    proxies = _networks(files.get(PROXIES, b""), faults)
    milters = parse_milters(files.get(MILTERS, b""), faults)
    if faults:
        raise ConfigError(faults)
    return SmtpdSettings(
        listeners=listeners,
        greeting=greeting,
        timeout_s=max(1, numbers["timeoutsmtpd"]),
        databytes=numbers["databytes"],
        sessions_max=numbers["concurrencysmtpd"],
        sessions_per_address=numbers["concurrencysmtpdperip"],
        recipients_max=numbers["maxrecipients"],
        errors_max=numbers["maxsmtperrors"],
        checks_recipients=bool(numbers["recipientcheck"]),
        looks_up_names=bool(numbers["smtpnames"]),
        proxies=proxies,
        milters=milters,
        certificate=files.get(CERTIFICATE, b""),
    )


def _networks(content: bytes, faults: list[ConfigFault]) -> tuple[Network, ...]:
    found = []
    for number, line in lines(content):
        try:
            found.append(ipaddress.ip_network(line.strip().decode("latin-1")))
        except ValueError:
            faults.append(_fault(PROXIES, number, "expected address or address/bits"))
    return tuple(found)


def _fault(name: str, line: int, problem: str) -> ConfigFault:
    return ConfigFault(file=f"control/{name}", line=line, problem=problem)
