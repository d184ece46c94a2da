"""qmail-qmtpd: take mail by QMTP on descriptors 0 and 1, under tcpserver.

Who the client is and what it may is in the environment: TCPREMOTEIP, TCPREMOTEHOST,
TCPREMOTEINFO, TCPLOCALHOST, TCPLOCALIP, RELAYCLIENT, DATABYTES, QMAILQUEUE. Exit codes:
0, also when the client hangs up; 100 when it does not speak QMTP; 111 after an hour,
and without a resource.
Source: qmail-qmtpd(8), qmail-qmtpd.c. Unlike it: a missing control/rcpthosts takes
mail for nobody, and recipients are judged under the address that percenthack makes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import QsendError
from qsend.core.smtpdsteps import databytes_of
from qsend.formats.accesscontrols import parse_access
from qsend.formats.control import parse_controls
from qsend.formats.qmtp import QmtpDialogue
from qsend.formats.qmtpcontrols import parse_qmtpd
from qsend.sysio.home import find_home, read_control
from qsend.sysio.hostask import HostAsk
from qsend.sysio.qmtpprogram import EXIT_RESOURCES, serve
from qsend.sysio.stderr import complain, ensure_stderr

CONTROLS = ("me", "databytes", "envnoathost", "percenthack", "rcpthosts")

_HELP = """\
usage: qmail-qmtpd

Takes mail by QMTP on descriptors 0 and 1. Run it under tcpserver, as the user qmaild:

  tcpserver -x /etc/tcp.qmtp.cdb -u qmaild -g nofiles 0 209 qmail-qmtpd
"""


def main(argv: Sequence[str]) -> int:
    """Serve one client; the exit code."""
    if wants_help(argv):
        return teach(_HELP)
    ensure_stderr()
    try:
        home = find_home(None, os.environ)
        return serve(home, _dialogue(home), HostAsk(home, _complain).settle)
    except (QsendError, OSError) as exc:
        _complain(str(exc))
        return EXIT_RESOURCES


def _dialogue(home: str) -> QmtpDialogue:
    """Raises: TempFail, ConfigError."""
    found = {name: read_control(home, name) for name in CONTROLS}
    files = {name: content for name, content in found.items() if content is not None}
    # Which domains are local is nobody's business here.
    controls = parse_controls({"locals": b"", **files})
    databytes = databytes_of(os.environb)
    return QmtpDialogue(
        parse_access(files, controls).relay,
        os.environb.get(b"RELAYCLIENT"),
        parse_qmtpd(files).databytes if databytes is None else databytes,
    )


def _complain(words: str) -> None:
    complain("qmail-qmtpd", words)
