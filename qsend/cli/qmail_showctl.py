"""qmail-showctl: what every control file says, or what its absence means.

Exit codes: 0; 111, with a line on standard output, when the home, its control
directory or control/me cannot be read, or the accounts are missing.
Source: qmail-showctl.c; qmail-showctl(8). The order and the lines of qmail's controls
are qmail's; qsend's own follow. Unlike qmail's, it says what qsend would not
understand.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import ConfigError, TempFail
from qsend.core.model import SPLIT, Accounts
from qsend.core.users import BREAK
from qsend.formats.classic import SLOTS_DEFAULT
from qsend.formats.control import Controls, parse_controls
from qsend.formats.controllines import FILE_MAX
from qsend.formats.showctl import Facts, control_lines
from qsend.sysio.accounts import load_accounts
from qsend.sysio.boundedread import read_most
from qsend.sysio.home import find_home

_HELP = """\
usage: qmail-showctl

Prints where qsend lives, its accounts, and then each control file with what it says,
or with `(Default.)` and what holds without it. `Oops!` marks a file that cannot be
read or understood. `qsend check` looks at more: owners, the queue, accounts.
"""


class _Stop(Exception):
    """It cannot go on; the text says why."""


def main(argv: Sequence[str]) -> int:
    """Print it all; arguments are ignored, as qmail-showctl does."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        for line in _lines():
            sys.stdout.write(f"{line}\n")
    except _Stop as exc:
        sys.stdout.write(f"Oops! {exc}\n")
        return 111
    return 0


def _lines() -> Iterator[str]:
    try:
        home = find_home(None, os.environ)
        owner = os.stat(home).st_uid
        single_user = os.getuid() != 0 and owner == os.getuid()
        accounts = load_accounts(single_user)
    except ConfigError as exc:
        raise _Stop(f"{exc.faults[0]}.") from exc
    except TempFail as exc:
        raise _Stop(f"{exc}.") from exc
    except OSError as exc:
        raise _Stop(f"Unable to chdir to {home}.") from exc
    facts = _read(home)
    yield from _heads(home, accounts, facts)
    yield from control_lines(facts)


def _heads(home: str, accounts: Accounts, facts: Facts) -> Iterator[str]:
    yield f"qmail home directory: {home}."
    yield f"user-ext delimiter: {BREAK.decode()}."
    yield f"paternalism (in decimal): {_patrn(facts)}."
    # Of the classic programs; our own processes take what the controls say.
    yield f"silent concurrency limit: {SLOTS_DEFAULT}."
    yield f"subdirectory split: {SPLIT}."
    uids = (
        accounts.alias,
        accounts.qmaild,
        accounts.qmaill,
        accounts.root,
        accounts.qmailp,
        accounts.qmailq,
        accounts.qmailr,
        accounts.qmails,
    )
    yield f"user ids: {', '.join(str(each.uid) for each in uids)}."
    yield f"group ids: {accounts.alias.gid}, {accounts.qmailq.gid}."


def _patrn(facts: Facts) -> int:
    content = facts.files.get("patrn")
    try:
        given = {} if content is None else {"patrn": content}
        return parse_controls({"locals": b"", **given}).patrn
    except ConfigError:
        return Controls().patrn


def _read(home: str) -> Facts:
    directory = f"{home}/control"
    try:
        names = sorted(os.listdir(directory))
    except OSError as exc:
        raise _Stop("Unable to chdir to control.") from exc
    files: dict[str, bytes | None] = {}
    mtimes: dict[str, float] = {}
    for name in names:
        try:
            mtimes[name] = os.stat(f"{directory}/{name}").st_mtime
            files[name] = _content(f"{directory}/{name}", name)
        except FileNotFoundError:
            continue  # removed meanwhile, or a link to nowhere: as if absent
        except OSError:
            files[name] = None
    if files.get("me", b"") is None:
        raise _Stop("Trouble reading control/me.")
    return Facts(files=files, mtimes=mtimes)


def _content(path: str, name: str) -> bytes | None:
    """What a file holds; None where it is none, or too long to be true."""
    if name.endswith(".cdb"):
        return b""  # only its age is looked at
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        content = read_most(file.fileno(), FILE_MAX + 1)
    return content if len(content) <= FILE_MAX else None
