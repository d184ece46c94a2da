"""The control files of the QMTP and QMQP servers, all of them as one value.

control/qmtplisten and control/qmqplisten decide whether there is a qmtpd process at
all; whose mail QMTP takes is accesscontrols.py's.
Source: qmail-control(5), qmail-qmtpd(8), qmail-qmqpd(8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qsend.core.errors import ConfigError, ConfigFault
from qsend.formats.control import number_files
from qsend.formats.listeners import Listener, parse_listeners
from qsend.formats.smtpdcontrols import NUMBERS as SMTPD_NUMBERS

QMTP_LISTEN, QMQP_LISTEN = "qmtplisten", "qmqplisten"
NUMBERS: Mapping[str, tuple[int, int, int]] = {
    "databytes": SMTPD_NUMBERS["databytes"],
    "timeoutqmtpd": (1200, 1, 86400),
    "concurrencyqmtpd": (200, 1, 100_000),
    "concurrencyqmtpdperip": (20, 1, 100_000),
}
"""The one-number files: default, least, most."""
QMTPD_FILES = frozenset({QMTP_LISTEN, QMQP_LISTEN, *NUMBERS})
"""Names of the control files that QmtpdSettings is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QmtpdSettings:
    """How QMTP and QMQP are served.

    `timeout_s` is how long a silent client is kept; the numbers of sessions count
    both protocols. Of `databytes` 0 is no limit.
    """

    qmtp: tuple[Listener, ...] = ()
    qmqp: tuple[Listener, ...] = ()
    databytes: int = 0
    timeout_s: int = 1200
    sessions_max: int = 200
    sessions_per_address: int = 20


def parse_qmtpd(files: Mapping[str, bytes]) -> QmtpdSettings:
    """The settings of a snapshot.

    Args:
        files: name of each control file that exists, and its content.
    Raises: ConfigError with every fault in any of QMTPD_FILES.
    """
    faults: list[ConfigFault] = []
    numbers = number_files(files, NUMBERS, faults)
    qmtp, qmqp = (
        parse_listeners(name, files.get(name, b""), (), faults)
        for name in (QMTP_LISTEN, QMQP_LISTEN)
    )
    if faults:
        raise ConfigError(faults)
    return QmtpdSettings(
        qmtp=qmtp,
        qmqp=qmqp,
        databytes=numbers["databytes"],
        timeout_s=numbers["timeoutqmtpd"],
        sessions_max=numbers["concurrencyqmtpd"],
        sessions_per_address=numbers["concurrencyqmtpdperip"],
    )
