"""maildirserial: give the messages of a maildir to a program that sends them.

`maildirserial [ -b ] [ -t lifetime ] dir prefix client [ arg ... ]`. What happens is
told on descriptor 2. Exit codes: 0 nothing is left; 111 messages are left, or a
failure; 100 wrong usage, also when the client says so.
Source: maildirserial(1). Unlike it, a lifetime that is no number is wrong usage.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.options import CommandLine, UsageError
from qsend.core.errors import PermFail, TempFail
from qsend.sysio import childprogram, maildirpusher
from qsend.sysio.home import find_home
from qsend.sysio.maildirpusher import Pusher, Pushing

_HELP = """\
usage: maildirserial [ -b ] [ -t lifetime ] dir prefix client [ arg ... ]

Looks for messages in the maildir dir, oldest first, whose second line is
`Delivered-To: ` and an address that begins with prefix (an empty prefix: all). If
there are any, runs the client in dir, with their names on its standard input, each
ended by a NUL. The client answers on its standard output, for each message
  NAME NUL LETTER TEXT LF
K: it is somewhere else now, and is removed here. Z: not now. D: never. The client
runs again, with what is there by then, until nothing is left for it; a message that
has an answer other than K waits for the next run. Three clients in a row without
any answer end the run.

  -b           return failures to their senders, and remove them
  -t lifetime  Z for a message older than so many seconds is a failure

  maildirserial -b -t 1209600 Maildir example.com- \\
    tcpclient -RHl0 mail.example.com 25 serialsmtp example.com- here.example

Exit codes: 0 nothing is left; 111 something is; 100 wrong usage.
"""


def main(argv: Sequence[str]) -> int:
    """Run once over the maildir."""
    return outcome.run("maildirserial", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    line = CommandLine(argv, "b", "t")
    bounces, lifetime = False, None
    for letter, value in line.options():
        if letter == "b":
            bounces = True
        else:
            try:
                lifetime = maildirpusher.parse_lifetime(value)
            except PermFail as exc:
                raise UsageError(f"-t: {exc}") from exc
    if len(line.arguments) < 3:
        raise UsageError
    maildir, prefix, *client = line.arguments
    how = Pushing(
        prefix=os.fsencode(prefix),
        lifetime=lifetime,
        bounces=bounces,
        home=find_home(None, os.environ),
        environ=os.environ,
    )
    maildirpusher.enter(maildir)

    def start(listed: int, writing: int) -> int:
        try:
            return childprogram.start(client, listed, writing)
        except childprogram.NotStarted as exc:
            raise TempFail(str(exc)) from exc

    return Pusher(how, start, _say).run()


def _say(words: str) -> None:
    outcome.say(f"maildirserial: {words}")
