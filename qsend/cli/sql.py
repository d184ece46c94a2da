"""qsend sql: make the tables of virtual users.

Source: docs/VIRTUAL.md, docs/schema.sql. Exit codes: 0, 1 when tables do not fit
the queries, 100 wrong usage or configuration, 111 temporary.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qsend.cli.parser import EXIT_NO, Parser, complain, home_of, shown
from qsend.cli.sqladmin import ADMIN_TEACHING, add_admin, open_admin, running_server
from qsend.core.errors import ConfigError, ConfigFault, TempFail
from qsend.formats.sqlqueries import SQLQUERIES, parse_sqlqueries
from qsend.formats.sqlserver import SqlServer
from qsend.sysio.sqladmin import (
    create_database,
    create_tables,
    excess_rights,
    grant_reader,
    granted_name,
)
from qsend.sysio.sqlcheck import query_problems

_TEACHING = f"""\
`qsend sql init` makes the database of control/sqlserver and its tables mailbox,
virtual, alias and rcpthosts. What exists is left as it is; then every query is
tried on the tables.

{ADMIN_TEACHING}

a first database, as root of a system with MariaDB:
  printf 'server localhost\\nlogin qmail\\npassword secret\\ndb qmail\\n' |
    install -m 600 /dev/stdin /var/qmail/control/sqlserver
  qsend sql init --grant-to localhost

Exit codes: 0; 1 the tables do not fit the queries; 100 wrong usage or
configuration; 111 the server does not answer, or refuses."""


def main(argv: Sequence[str]) -> int:
    """Make what is missing and say what was done."""
    parser = Parser(argv[0], "Make the tables of virtual users.", _TEACHING)
    parser.add_argument("action", choices=["init"], help="make database and tables")
    parser.add_home()
    add_admin(parser)
    parser.add_argument(
        "--grant-to",
        metavar="CLIENT",
        help="let the account of control/sqlserver SELECT when it comes from this"
        " host (%% is any), and make it if need be",
    )
    return _init(argv[0], parser.parse_args(argv[1:]))


def _init(command: str, args: argparse.Namespace) -> int:
    home = home_of(args)
    server = running_server(home)
    queries = parse_sqlqueries(_read_optional(f"{home}/{SQLQUERIES}"))
    admin = open_admin(args, lambda: server, uses_db=False)
    try:
        create_database(admin, server.db)
        for table, is_new in create_tables(admin):
            _say(f"table {table}: {'made' if is_new else 'exists, left as it is'}")
        problems = list(query_problems(admin.execute, queries))
        if args.grant_to is not None:
            grant_reader(admin, server, args.grant_to)
    finally:
        admin.close()
    _say_rights(server, args.grant_to)
    for problem in problems:
        complain(command, shown(problem))
    return EXIT_NO if problems else 0


def _say_rights(server: SqlServer, client: str | None) -> None:
    """What the running account may, and what it needs."""
    place = granted_name(server.db)
    _say(
        "the running system needs this and no more:\n"
        f"  GRANT SELECT ON {place}.* TO {server.login}@{client or 'its host'}"
    )
    try:
        for grant in excess_rights(server):
            _say(f"note: it may do more than it needs: {grant}")
    except TempFail as exc:
        _say(f"note: it cannot connect yet: {exc}")


def _read_optional(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as exc:
        problem = f"unreadable: {exc.strerror}"
        fault = ConfigFault(file=path, line=0, problem=problem)
        raise ConfigError([fault]) from exc


def _say(line: str) -> None:
    sys.stdout.write("".join(f"{shown(each)}\n" for each in line.split("\n")))
