"""qmail-qmqpd: take one message by QMQP on descriptors 0 and 1, under tcpserver.

Takes mail for anybody: who may connect is for tcpserver's rules to say. Exit codes: 0,
also when the client hangs up; 100 when it does not speak QMQP; 111 after an hour, and
without a resource.
Source: qmail-qmqpd(8), qmail-qmqpd.c.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import QsendError
from qsend.core.relay import Refused, Unlisted
from qsend.formats.qmtp import QmqpDialogue
from qsend.sysio.home import find_home
from qsend.sysio.qmtpprogram import EXIT_RESOURCES, serve
from qsend.sysio.stderr import complain, ensure_stderr

_HELP = """\
usage: qmail-qmqpd

Takes one message by QMQP on descriptors 0 and 1, for anybody. Run it under tcpserver,
as the user qmaild, with rules that allow your own machines and deny all others:

  tcpserver -x /etc/tcp.qmqp.cdb -u qmaild -g nofiles 0 628 qmail-qmqpd
"""


def main(argv: Sequence[str]) -> int:
    """Serve one client; the exit code."""
    if wants_help(argv):
        return teach(_HELP)
    ensure_stderr()
    try:
        return serve(find_home(None, os.environ), QmqpDialogue(), _never)
    except (QsendError, OSError) as exc:
        complain("qmail-qmqpd", str(exc))
        return EXIT_RESOURCES


def _never(_unlisted: Unlisted) -> Refused:
    raise AssertionError("QMQP judges nobody")
