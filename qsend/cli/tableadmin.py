"""What the commands that write the tables of virtual users share."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from qsend.cli.controlview import table
from qsend.cli.parser import EXIT_NO, EXIT_USAGE, Parser, complain, home_of, shown
from qsend.cli.sqladmin import add_admin, open_admin
from qsend.core.errors import ConfigError, ConfigFault, PermFail
from qsend.core.model import Account, Accounts
from qsend.core.newrows import Known, Objection
from qsend.core.sqlrules import SqlOptions
from qsend.formats.control import Controls, parse_controls
from qsend.formats.sqlcontrols import SqlSettings, parse_sql
from qsend.formats.sqlserver import SQLSERVER
from qsend.sysio import passwd
from qsend.sysio.accounts import load_accounts
from qsend.sysio.controldir import read_controls
from qsend.sysio.sqltables import SqlTables
from qsend.sysio.userdb import UserDb

WRITING = """\
Rows are written with an administrator's account of the database, never with that
of control/sqlserver, which may only read (`qsend sql --help` has more):
  --admin-file FILE   lines as in control/sqlserver, mode 0600: server, login,
                      password, db
  --admin-login NAME  at the server of control/sqlserver; default root
The mail system sees a change within seconds, and at once after `qsend reload`.
`qsend whois ADDRESS` shows what then happens to mail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One home, its controls, and the accounts that its mail system has."""

    home: str
    controls: Controls
    settings: SqlSettings
    accounts: Accounts
    single_user: bool

    @property
    def options(self) -> SqlOptions:
        """The rules in force for rows."""
        return self.settings.options


def load_site(args: argparse.Namespace) -> Site:
    """The site of --home. Raises: ConfigError, also without control/sqlserver."""
    home = home_of(args)
    files = read_controls(home)
    controls = parse_controls(files)
    settings = parse_sql(files, controls)
    if settings is None:
        problem = "missing: without it nothing asks a database; see `qsend sql --help`"
        raise ConfigError([ConfigFault(file=SQLSERVER, line=0, problem=problem)])
    single_user = os.getuid() != 0
    return Site(
        home=home,
        controls=controls,
        settings=settings,
        accounts=load_accounts(single_user),
        single_user=single_user,
    )


@contextmanager
def opened(args: argparse.Namespace, site: Site) -> Iterator[SqlTables]:
    """The tables, as the administrator that the options name.

    Raises: ConfigError, TempFail.
    """
    admin = open_admin(args, lambda: site.settings.servers[0])
    try:
        yield SqlTables(admin)
    finally:
        admin.close()


def known(site: Site, tables: SqlTables, name: str) -> Known:
    """What is there of a user name. Raises: TempFail."""
    written = name.encode("utf-8", "surrogateescape")
    if not written or b"\0" in written:
        return Known()
    users = UserDb(site.home, site.accounts, single_user=site.single_user)
    try:
        is_assigned = users.assigned(written) is not None
    finally:
        users.close()
    entry = None if site.single_user else passwd.by_name(written)
    return Known(
        in_mailbox=tables.has("mailbox", {"username": name}),
        account=entry.account if entry else None,
        home=os.fsdecode(entry.home) if entry else "",
        is_assigned=is_assigned,
    )


def is_refused(
    command: str, objections: Iterable[Objection], *, is_forced: bool
) -> bool:
    """Say what stands against a row; whether it must not be added."""
    refused = False
    for objection in objections:
        if objection.may_force and is_forced:
            complain(command, f"warning: {shown(objection.text)}")
            continue
        more = "; --force adds it nevertheless" if objection.may_force else ""
        complain(command, shown(objection.text + more))
        refused = True
    return refused


class Actions:
    """The actions of one command, each with its own options and `--help`.

    What all of them take may stand before the action or behind it.
    """

    def __init__(self, parser: Parser) -> None:
        _add_common(parser, is_again=False)
        self._made = parser.add_subparsers(
            dest="action", metavar="ACTION", required=True, parser_class=_ActionParser
        )

    def add(
        self,
        run: Callable[[argparse.Namespace, Site], int],
        name: str,
        summary: str,
        teaching: str,
        *,
        is_adding: bool = False,
    ) -> Parser:
        """An action; `is_adding` gives it --force."""
        made: Parser = self._made.add_parser(
            name,
            help=summary,
            summary=f"{summary[0].upper()}{summary[1:]}.",
            teaching=teaching,
        )
        _add_common(made, is_again=True)
        made.set_defaults(run=run)
        if is_adding:
            made.add_argument(
                "--force", action="store_true", help="add what is probably not meant"
            )
        return made


class _ActionParser(Parser):
    """As argparse makes one below another."""

    def __init__(self, *, prog: str, summary: str, teaching: str) -> None:
        super().__init__(prog.removeprefix("qsend "), summary, teaching)


def _add_common(parser: Parser, *, is_again: bool) -> None:
    unset = argparse.SUPPRESS if is_again else None
    parser.add_home(unset)
    parser.add_json(unset or False)
    add_admin(parser, unset)


def run_action(args: argparse.Namespace, command: str) -> int:
    """Do what the action says; the exit code.

    Raises: ConfigError, TempFail.
    """
    args.command = f"{command} {args.action}"
    run: Callable[[argparse.Namespace, Site], int] = args.run
    try:
        return run(args, load_site(args))
    except PermFail as exc:
        return refuse(args, str(exc))


def say(args: argparse.Namespace, facts: object, lines: Iterable[str]) -> None:
    """The result, for a program or for people."""
    if args.json:
        lines = [json.dumps(facts)]
        sys.stdout.write(f"{lines[0]}\n")
        return
    for line in lines:
        sys.stdout.write(f"{shown(line)}\n")


def say_rows(
    args: argparse.Namespace,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, object]],
) -> int:
    """A list; the exit code, which tells whether there is anything in it."""
    found = list(rows)
    cells = [
        [
            shown(each) if isinstance(each, str) else each
            for each in map(row.get, columns)
        ]
        for row in found
    ]
    say(args, found, table(columns, cells) if found else ["none"])
    return 0 if found else EXIT_NO


def refuse(args: argparse.Namespace, text: str, code: int = EXIT_USAGE) -> int:
    """The answer is no; the exit code."""
    if args.json:
        sys.stdout.write(f"{json.dumps({'error': text})}\n")
    complain(args.command, shown(text))
    return code


def numbers(account: Account) -> str:
    """`uid:gid`."""
    return f"{account.uid}:{account.gid}"
