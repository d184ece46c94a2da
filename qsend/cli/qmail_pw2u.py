"""qmail-pw2u: users/assign from a password file on standard input.

Exit codes: 0; 100 wrong usage; 111, with a line on standard error and nothing on
standard output.
Source: qmail-pw2u.c; qmail-pw2u(8). Unlike qmail's, it prints all or nothing, passes
over accounts whose uid or gid is no number, and ends a last line of users/append
that has no end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from qsend.cli.options import CommandLine, UsageError, teach, wants_help
from qsend.core.errors import TempFail
from qsend.formats.pwassign import (
    ALIAS,
    PasswdLine,
    Rules,
    account_lines,
    appended,
    is_wanted,
    parse_mailnames,
    parse_names,
    parse_passwd,
    parse_subusers,
    subuser_lines,
)
from qsend.sysio.home import find_home, read_users

_HELP = """\
usage: qmail-pw2u [ -/ohHuUC ] [ -c char ] < /etc/passwd > users/assign

Writes a line of users/assign for every account, and one for its extension
addresses; qmail-newu makes users/cdb of them.

  -o       pass over accounts without a home, or with a home of others (default)
  -h       stop if a home is missing
  -H       do not look at homes
  -u       take accounts with upper-case letters too; -U: do not (default)
  -c char  the character between name and extension (default -); -C: no extensions
  -/       extensions choose files in directories, .qmail-/ext (dash field -/)

In users/: include (only these accounts), exclude (not these), mailnames
(`account:name:name`: addresses in place of the account's name), subusers
(`sub:account:pre:`: sub means account-pre), append (lines to be added).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """`homes` is "skip", "stop" or "any"."""

    homes: str = "skip"
    brk: bytes = b"-"
    dash: bytes = b"-"
    with_uppercase: bool = False


def main(argv: Sequence[str]) -> int:
    """Print the lines."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        options = _options(argv)
    except UsageError as exc:
        sys.stderr.write(f"qmail-pw2u: {exc}\ntry: qmail-pw2u --help\n")
        return 100
    try:
        home = find_home(None, os.environ)
        written = list(_all_lines(home, options, _rules(home, options)))
    except TempFail as exc:
        sys.stderr.write(f"qmail-pw2u: fatal: {exc}\n")
        return 111
    return _write(written)


def _options(argv: Sequence[str]) -> _Options:
    options = _Options()
    for letter, value in CommandLine(argv, "/ohHuUC", "c").options():
        options = _SAYS[letter](options, value)
    return options


_SAYS: dict[str, Callable[[_Options, str], _Options]] = {
    "/": lambda options, _: replace(options, dash=b"-/"),
    "o": lambda options, _: replace(options, homes="skip"),
    "h": lambda options, _: replace(options, homes="stop"),
    "H": lambda options, _: replace(options, homes="any"),
    "u": lambda options, _: replace(options, with_uppercase=True),
    "U": lambda options, _: replace(options, with_uppercase=False),
    "c": lambda options, value: replace(options, brk=os.fsencode(value)[:1]),
    "C": lambda options, _: replace(options, brk=b""),
}


def _rules(home: str, options: _Options) -> Rules:
    include = read_users(home, "include")
    return Rules(
        include=None if include is None else parse_names(include),
        exclude=parse_names(read_users(home, "exclude") or b""),
        mailnames=parse_mailnames(read_users(home, "mailnames") or b""),
        brk=options.brk,
        dash=options.dash,
        with_uppercase=options.with_uppercase,
    )


def _all_lines(home: str, options: _Options, rules: Rules) -> Iterator[bytes]:
    """Every line. Raises: TempFail when the result would not be what was meant."""
    accounts: dict[bytes, PasswdLine] = {}
    has_alias = False
    for account in _accounts(options, rules):
        accounts[account.name.lower()] = account
        has_alias |= account.name == ALIAS
        yield from account_lines(account, rules)
    if not has_alias:
        raise TempFail("unable to find alias user")
    for sub, name, pre in parse_subusers(read_users(home, "subusers") or b""):
        if name.lower() not in accounts:
            shown = name.decode("ascii", "backslashreplace")
            raise TempFail(f"unable to find {shown} user for subuser")
        yield from subuser_lines(sub, accounts[name.lower()], pre, rules)
    yield from appended(read_users(home, "append") or b"")
    yield b".\n"


def _accounts(options: _Options, rules: Rules) -> Iterator[PasswdLine]:
    try:
        for line in sys.stdin.buffer:
            account = parse_passwd(line)
            if account is None or not is_wanted(account, rules):
                continue
            if options.homes == "any" or _owns_home(account, options.homes):
                yield account
    except OSError as exc:
        raise TempFail(f"unable to read input: {exc.strerror}") from exc


def _owns_home(account: PasswdLine, homes: str) -> bool:
    try:
        return os.stat(account.home).st_uid == int(account.uid)
    except OSError as exc:
        if isinstance(exc, FileNotFoundError) and homes == "skip":
            return False
        shown = account.home.decode("utf-8", "backslashreplace")
        raise TempFail(f"unable to stat {shown}: {exc.strerror}") from exc


def _write(written: Sequence[bytes]) -> int:
    try:
        sys.stdout.buffer.writelines(written)
        sys.stdout.buffer.flush()
    except OSError as exc:
        sys.stderr.write(f"qmail-pw2u: fatal: unable to write output: {exc.strerror}\n")
        sys.stdout = None  # its flush at exit would complain again
        return 111
    return 0
