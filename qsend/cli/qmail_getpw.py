"""qmail-getpw: whose mail a local part is, by the accounts of the machine.

`qmail-getpw local` prints name, uid, gid, home, dash and extension, each with a NUL
after it. For a classic qmail-lspawn; our lookup process asks by itself. Exit codes:
0, 100 without an argument, 115 when a home cannot be looked at now, 116 without an
account alias, 118 when the accounts cannot be asked now.
Source: qmail-getpw.c; qmail-getpw(8). Unlike qmail's, it tells "cannot know" from "no
such account", and knows names of more than 31 bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.lspawnreport import Exit
from qsend.core.users import BREAK, passwd_candidates
from qsend.sysio import passwd

_HELP = """\
usage: qmail-getpw local

Prints, each ended by a NUL byte: the account that a local part belongs to by the
password file, its uid, gid and home, a dash, and the extension. The account is the
longest part of the name up to a `-` that is an account which owns its home and is
not root; if there is none, alias. Exit codes: 0; 100 usage; 115, 116 (no account
alias) and 118 as qmail-lspawn understands them.
"""


def main(argv: Sequence[str]) -> int:
    """Print the six fields."""
    if wants_help(argv):
        return teach(_HELP)
    if not argv:
        return 100
    local = os.fsencode(argv[0])
    try:
        fields = _by_account(local) or _by_alias(local)
    except _HomeTrouble:
        return Exit.NFS
    except OSError:
        return Exit.SYSTEM
    if fields is None:
        return Exit.NO_ALIAS
    os.write(1, b"".join(field + b"\0" for field in fields))
    return 0


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
