"""qmail-popup: ask a POP3 client for name and password, and run a program with them.

`qmail-popup hostname subprogram ...` on descriptors 0 and 1. The program reads
descriptor 3: name, password or APOP digest, and challenge, each ended by NUL. The
exit code is 1, always.
Source: qmail-popup(8), qmail-popup.c. Unlike it: CAPA is answered, a temporary
failure is told from a wrong password, and what a client sends ahead of the answers
is left to the program.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import assert_never

from qsend.cli.options import teach, wants_help
from qsend.core import pop3auth
from qsend.core.errors import RemoteProtocolError, TempFail
from qsend.core.pop3auth import Authorization, Bye, Say, StartTls, Try
from qsend.core.pop3lines import Command, Lines
from qsend.sysio import childprogram, clock
from qsend.sysio.childprogram import NotStarted
from qsend.sysio.clientline import ClientGone, ClientLine
from qsend.sysio.stderr import ensure_stderr

TIMEOUT_S = 1200.0
"""How long a silent client is waited for (qmail-popup.c)."""
EXIT = 1
_EXIT_TEMPORARY = 111
_TELLING = 3
"""The descriptor that the program reads (checkpassword(8))."""

_HELP = """\
usage: qmail-popup hostname subprogram [ argument ... ]

Asks a POP3 client on descriptors 0 and 1 for name and password, and gives them to the
subprogram on descriptor 3. hostname becomes part of the challenge for APOP:

  tcpserver 0 110 qmail-popup mail.example.org checkpassword qmail-pop3d Maildir
"""


def main(argv: Sequence[str]) -> int:
    """Run with the arguments after the program's name; return the exit code."""
    if wants_help(argv):
        return teach(_HELP)
    ensure_stderr()
    line = ClientLine(0, 1, TIMEOUT_S)
    try:
        if len(argv) < 2:
            line.write(b"-ERR usage: popup hostname subprogram\r\n")
        else:
            _ask(line, os.fsencode(argv[0]), argv[1:])
        line.flush()
    except ClientGone:
        pass  # as after QUIT
    finally:
        line.close()
    return EXIT


def _ask(line: ClientLine, hostname: bytes, program: Sequence[str]) -> None:
    """Talk to the client until it logs in or leaves. Raises: ClientGone."""
    challenge = b"<%d.%d@%b>" % (os.getpid(), clock.now(), hostname)
    authorization = Authorization(challenge=challenge)
    line.write(authorization.greeting())
    lines = Lines()
    while True:
        try:
            command = _next(line, lines)
        except RemoteProtocolError:
            line.write(pop3auth.TOO_LONG)
            return
        match authorization.take(command):
            case Say(text=text):
                line.write(text)
            case Bye(text=text) | StartTls(text=text):
                line.write(text)
                return
            case Try(name=name, secret=secret):
                line.flush()
                line.write(
                    _judged(program, b"%b\0%b\0%b\0" % (name, secret, challenge))
                )
                return
            case _ as step:
                assert_never(step)


def _next(line: ClientLine, lines: Lines) -> Command:
    """The next command, and not a byte of what follows it: that is the program's.

    Raises: ClientGone; RemoteProtocolError when the line is too long.
    """
    while True:
        command = lines.next()
        if command is not None:
            return command
        lines.feed(line.read(1))


def _judged(program: Sequence[str], told: bytes) -> bytes:
    """Run the program to its end; what is left to say to the client."""
    try:
        code = childprogram.run_told(program, _TELLING, told)
    except NotStarted:
        return pop3auth.TEMPORARY
    except TempFail:
        return b"-ERR aack, child crashed\r\n"
    if code == _EXIT_TEMPORARY:
        return pop3auth.TEMPORARY
    return pop3auth.REFUSED if code else b""
