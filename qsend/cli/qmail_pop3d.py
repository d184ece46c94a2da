"""qmail-pop3d: serve one maildir by POP3 on descriptors 0 and 1, after the login.

`qmail-pop3d maildir`, run as the mailbox's user in its home. Exit code 0, whatever
the client did; 1 as root.
Source: qmail-pop3d(8), qmail-pop3d.c.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.pop3 import NO_MAILDIR
from qsend.sysio.clientline import ClientGone, ClientLine
from qsend.sysio.popsession import serve
from qsend.sysio.stderr import ensure_stderr

TIMEOUT_S = 1200.0
"""How long a silent client is waited for (qmail-pop3d.c)."""

_HELP = """\
usage: qmail-pop3d maildir

Serves the maildir in the current directory by POP3 on descriptors 0 and 1, after the
login. Run it under qmail-popup and checkpassword:

  tcpserver 0 110 qmail-popup mail.example.org checkpassword qmail-pop3d Maildir
"""


def main(argv: Sequence[str]) -> int:
    """Run with the arguments after the program's name; return the exit code."""
    if wants_help(argv):
        return teach(_HELP)
    ensure_stderr()
    if os.getuid() == 0:
        sys.stderr.write("qmail-pop3d invoked as uid 0, terminating\n")
        return 1
    line = ClientLine(0, 1, TIMEOUT_S)
    try:
        if argv:
            problem = serve(line, os.fsencode(argv[0]))
        else:
            line.write(NO_MAILDIR)
            line.flush()
            problem = "no maildir given"
    except ClientGone:
        return 0
    finally:
        line.close()
    if problem and not _is_client(2):
        sys.stderr.write(f"qmail-pop3d: uid {os.getuid()}: {problem}\n")
    return 0


def _is_client(fd: int) -> bool:
    """inetd gives the connection as descriptor 2, too."""
    return os.path.sameopenfile(fd, 1)
