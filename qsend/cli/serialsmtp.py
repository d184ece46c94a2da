"""serialsmtp: send files over an SMTP connection that somebody else has made.

`serialsmtp prefix helohost`, below a UCSPI client such as tcpclient: reads from the
server on descriptor 6, writes to it on 7; file names, each ended by NUL, come on 0,
and results go to 1. $TCPREMOTEIP, if set, is named in results. Exit codes: 0; 111
when the connection is lost or refused; 100 wrong usage.
Source: serialsmtp(1); sysio/serialsmtp says where we differ.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.options import UsageError
from qsend.core.errors import TempFail
from qsend.formats.serialmail import Result, render_result
from qsend.sysio.serialsmtp import Serial, Wire, serve

_HELP = """\
usage: serialsmtp prefix helohost

Run by maildirserial, below a UCSPI client. Each file named on standard input begins
with the lines `Return-Path: <sender>` and `Delivered-To: prefix-and-recipient`; what
follows is sent from that sender to that recipient, without the prefix. Files of
another prefix are passed over. For each file it prints its name, NUL, and a line:
K and the server's words when it was accepted, Z when it may be later, D when never.
helohost is the name we give. Exit codes: 0; 111 the connection was lost or refused;
100 wrong usage.
"""
_FROM_SERVER = 6
_TO_SERVER = 7


def main(argv: Sequence[str]) -> int:
    """Send what standard input names."""
    return outcome.run("serialsmtp", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    if len(argv) < 2:
        raise UsageError
    wire = Wire(
        reading=_FROM_SERVER,
        writing=_TO_SERVER,
        remote=os.environb.get(b"TCPREMOTEIP", b""),
    )
    serial = Serial(wire, os.fsencode(argv[0]), _print)
    serve(serial, os.fsencode(argv[1]), 0)
    return 0


def _print(result: Result) -> None:
    rest = render_result(result)
    try:
        while rest:
            rest = rest[os.write(1, rest) :]
    except OSError as exc:
        raise TempFail(f"unable to write output: {exc.strerror}") from exc
