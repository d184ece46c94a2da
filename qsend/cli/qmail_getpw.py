"""qmail-getpw: whose mail a local part is, by the accounts of the machine.

`qmail-getpw local` prints name, uid, gid, home, dash and extension, each with a NUL
after it. For a classic qmail-lspawn; with control/sqlserver it asks our lookup
process, and never says alias when that cannot tell. Exit codes: 0, 100 without an
argument, 115 when a home cannot be looked at now, 116 without an account alias, 118
when the accounts cannot be asked now, 121 when lookup or its database cannot.
Source: qmail-getpw.c; qmail-getpw(8). Unlike qmail's, it tells "cannot know" from "no
such account", and knows names of more than 31 bytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import assert_never

from qsend.cli.options import teach, wants_help
from qsend.core.errors import TempFail
from qsend.core.lspawnreport import Exit
from qsend.core.model import User
from qsend.core.users import BREAK, NoUser, Trouble, passwd_candidates
from qsend.sysio import lookupclient, passwd
from qsend.sysio.home import find_home

_HELP = """\
usage: qmail-getpw local

Prints, each ended by a NUL byte: the account that a local part belongs to by the
password file, its uid, gid and home, a dash, and the extension. The account is the
longest part of the name up to a `-` that is an account which owns its home and is
not root; if there is none, alias. With control/sqlserver the lookup process answers,
from the database first; it lets root and qmailp ask. Exit codes: 0; 100 usage; 115,
116 (no account alias), 118 and 121 (lookup or its database does not answer) as
qmail-lspawn understands them.
"""


def main(argv: Sequence[str]) -> int:
    """Print the six fields."""
    if wants_help(argv):
        return teach(_HELP)
    if not argv:
        return 100
    local = os.fsencode(argv[0])
    try:
        home = find_home(None, os.environ)
        if lookupclient.is_asked(home):
            return _by_lookup(home, local)
        fields = _by_account(local) or _by_alias(local)
    except TempFail as exc:
        sys.stderr.write(f"qmail-getpw: {exc}\n")
        return Exit.NO_LOOKUP
    except _HomeTrouble:
        return Exit.NFS
    except OSError:
        return Exit.SYSTEM
    if fields is None:
        return Exit.NO_ALIAS
    _print(fields)
    return 0


def _print(fields: Sequence[bytes]) -> None:
    os.write(1, b"".join(field + b"\0" for field in fields))


def _by_lookup(home: str, local: bytes) -> int:
    """Print what lookup says; the exit code. Raises: TempFail."""
    with lookupclient.LookupClient(home) as lookup:
        outcome = lookup.user(local)
    match outcome:
        case User() as user:
            uid, gid = b"%d" % user.uid, b"%d" % user.gid
            _print((user.name, uid, gid, user.home, user.dash, user.ext))
            return 0
        case NoUser():
            return Exit.NO_ALIAS
        case Trouble(text=text):
            raise TempFail(text.decode("utf-8", "backslashreplace"))
        case _:
            assert_never(outcome)


class _HomeTrouble(Exception):
    """A home could not be looked at, for a reason that may pass."""


def _by_account(local: bytes) -> tuple[bytes, ...] | None:
    for candidate in passwd_candidates(local):
        entry = passwd.by_name(candidate.name)
        if entry is not None and _is_user(entry):
            return _fields(entry, candidate.dash, candidate.ext)
    return None


def _is_user(entry: passwd.PasswdEntry) -> bool:
    try:
        return passwd.is_user(entry)
    except OSError as exc:
        raise _HomeTrouble from exc


def _by_alias(local: bytes) -> tuple[bytes, ...] | None:
    entry = passwd.by_name(b"alias")
    return None if entry is None else _fields(entry, BREAK, local)


def _fields(entry: passwd.PasswdEntry, dash: bytes, ext: bytes) -> tuple[bytes, ...]:
    uid, gid = entry.account.uid, entry.account.gid
    return (entry.name, b"%d" % uid, b"%d" % gid, entry.home, dash, ext)
