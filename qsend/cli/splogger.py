"""splogger: lines on standard input to syslog, each with the time it came.

`splogger [tag [facility]]`. Exit codes: 0 at the end of the input, 100 wrong usage.
Source: splogger(8), splogger.c. As there, a last line without an end is not logged.
Unlike there, a facility that is no number is refused.
"""

from __future__ import annotations

import os
import sys
import syslog
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.formats.splog import LogCutter, Urgency
from qsend.sysio import clock
from qsend.sysio.stderr import ensure_stderr

_HELP = """\
usage: splogger [ tag [ facility ] ]

Hands every line of its standard input to syslog as `seconds.microseconds line`, with
the given tag (default splogger) and facility number (default 2, mail). A line that
starts with alert: or warning: gets that priority. Longer lines than syslog takes come
in pieces, the later ones with + in place of the blank. As in:

  qmail-start ./Mailbox splogger qmail

syslog may lose lines when it is busy; multilog does not.
"""
_PRIORITIES = {
    Urgency.INFO: syslog.LOG_INFO,
    Urgency.WARNING: syslog.LOG_WARNING,
    Urgency.ALERT: syslog.LOG_ALERT,
}
_FACILITY_MAX = 23
"""The last of syslog(3), local7."""
_READ_MAX = 65536


def main(argv: Sequence[str]) -> int:
    """Log until standard input ends."""
    if wants_help(argv):
        return teach(_HELP)
    ensure_stderr()
    tag = argv[0] if argv else "splogger"
    facility = _facility(argv[1]) if len(argv) > 1 else syslog.LOG_MAIL
    if facility is None:
        sys.stderr.write(
            f"splogger: expected a facility from 0 to {_FACILITY_MAX}; "
            "try: splogger --help\n"
        )
        return 100
    syslog.openlog(tag, 0, facility)
    cutter, stamp = LogCutter(), ""
    while data := _read():
        for record in cutter.feed(data):
            if record.is_first:
                stamp = _stamp()
            mark = " " if record.is_first else "+"
            syslog.syslog(_PRIORITIES[record.urgency], f"{stamp}{mark}{record.text}")
    return 0


def _read() -> bytes:
    try:
        return os.read(0, _READ_MAX)
    except OSError:
        return b""  # as at the end: there is nobody to tell


def _facility(text: str) -> int | None:
    """The code that syslog(3) wants for a facility's number."""
    if not text.isascii() or not text.isdigit() or int(text[:9]) > _FACILITY_MAX:
        return None
    return int(text) << 3


def _stamp() -> str:
    seconds, microseconds = divmod(clock.now_ns() // 1000, 1_000_000)
    return f"{seconds}.{microseconds:06d}"
