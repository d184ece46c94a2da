"""setforward: make a forwarding table of the text on standard input.

Exit codes: 0; 100 wrong syntax or usage; 111; the old table stays then.
Source: setforward(1), setforward.c; sysio/replacefile for what differs.
"""

from __future__ import annotations

from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.options import UsageError
from qsend.cli.tables import written
from qsend.formats.forwardtable import TABLE_MAX, parse_table
from qsend.sysio import stdin
from qsend.sysio.cdbmaker import make_cdb

_HELP = """\
usage: setforward data.cdb data.tmp

Makes the table data.cdb for fastforward, by way of data.tmp, of instructions on
standard input:

  root@here.example: joe@here.example, ann@there.example;   # some addresses
  sos@here.example:  ?owner-sos@here.example, /etc/sos.bin; # owner; a list's file
  log@:              |logger -t mail;                       # user at any host
  @old.example:      all@new.example;                       # any user at the host

`|program` reads the message, `!program` the message as preline gives it. A backslash
keeps the next byte from having a meaning.
"""


def main(argv: Sequence[str]) -> int:
    """`argv` is the table and the temporary file."""
    return outcome.run("setforward", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    if len(argv) < 2:
        raise UsageError
    path, tmp = argv[:2]
    with written(tmp):
        make_cdb(path, tmp, parse_table(stdin.read_whole(TABLE_MAX)))
    return 0
