"""newaliases: put the aliases of /etc/aliases in force.

Exit codes: 0; 100 an address is too long; 111; the old table stays then.
Source: newaliases(1), newaliases.c; formats/aliases for what differs. The file can be
another one here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.cli.tables import read_domains, read_source, written
from qsend.formats.aliases import parse_aliases
from qsend.sysio.cdbmaker import make_cdb

_HELP = """\
usage: newaliases [ file ]

Reads aliases as sendmail has them, from /etc/aliases (or $ALIASES, or the file), and
makes the table /etc/aliases.cdb of them, which is in force at once where
~alias/.qmail-default has the line `| fastforward -d /etc/aliases.cdb`.

  root: joe, ann@there.example           joe, wherever the alias is used
  joe@virtual.example: joe-v             one address of one domain
  @old.example: joe                      any address of a domain
  tickets: "|/usr/local/bin/ticket new"  a program
  archive: /var/log/mail-archive         a file, which the alias user must own
  list: :include:/etc/lists/list         a list, for which newinclude is run
  owner-list: ann                        gets the bounces of list
"""
_FILE = "/etc/aliases"


def main(argv: Sequence[str]) -> int:
    """`argv` may name another file; options, which sendmail's has, mean nothing."""
    return outcome.run("newaliases", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    files = [word for word in argv if not word.startswith("-")]
    path = files[0] if files else os.environ.get("ALIASES") or _FILE
    records = parse_aliases(read_source(path), read_domains({}))
    with written(f"{path}.tmp"):
        make_cdb(f"{path}.cdb", f"{path}.tmp", records)
    return 0
