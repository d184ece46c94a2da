"""maildirsmtp: send the messages of a maildir to one host over SMTP.

`maildirsmtp [ -p port ] dir prefix host helohost`: as maildirserial with -b and a
lifetime of two weeks, and serialsmtp over a connection to host. Exit codes: 0 nothing
is left; 111 messages are left, or a failure; 100 wrong usage.
Source: maildirsmtp(1). Unlike it, no tcpclient is needed, and the port can be chosen.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.options import CommandLine, UsageError
from qsend.sysio import maildirpusher
from qsend.sysio.home import find_home
from qsend.sysio.maildirpusher import Pusher, Pushing
from qsend.sysio.smtppusher import LIFETIME_S, PORT, UNREACHABLE, SmtpPusher, Target

_HELP = """\
usage: maildirsmtp [ -p port ] dir prefix host helohost

Sends the messages in the maildir dir whose Delivered-To line begins with prefix to
host, over one SMTP connection, oldest first, to the recipient without the prefix.
What is accepted is removed. What is refused for good, or deferred and older than two
weeks, is returned to its sender and removed. The rest stays for the next run. host is
a name (its addresses are asked for, not its MX), or an address; helohost is our name.

  setlock -nx RELAYHOST maildirsmtp Maildir example.com- mail.example.com here.example

  -p port  instead of 25

Exit codes: 0 nothing is left; 111 something is; 100 wrong usage. maildirpush does
this for a tree of such directories.
"""


def main(argv: Sequence[str]) -> int:
    """Run once over the maildir."""
    return outcome.run("maildirsmtp", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    line = CommandLine(argv, "", "p")
    port = PORT
    for _, value in line.options():
        port = parse_port(value)
    if len(line.arguments) != 4:
        raise UsageError
    maildir, prefix, host, helo = map(os.fsencode, line.arguments)
    home = find_home(None, os.environ)
    how = Pushing(
        prefix=prefix,
        lifetime=LIFETIME_S,
        bounces=True,
        home=home,
        environ=os.environ,
        last_code=UNREACHABLE,
    )
    client = SmtpPusher(
        home=home,
        target=Target(host=host, port=port, helo=helo),
        prefix=prefix,
        lifetime=LIFETIME_S,
        say=_say,
    )
    maildirpusher.enter(os.fsdecode(maildir))
    return Pusher(how, client.start, _say).run()


def parse_port(text: str) -> int:
    """Raises: UsageError."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:6]) < 65536:
        raise UsageError(f"expected a port from 1 to 65535, found {text[:40]!r}")
    return int(text)


def _say(words: str) -> None:
    outcome.say(f"maildirsmtp: {words}")
