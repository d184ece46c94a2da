"""qsend user: mailboxes of the database: rows, passwords, homes.

Source: docs/VIRTUAL.md. Exit codes: 0, 1 no such user, 100 wrong usage or refused,
111 temporary.
"""

from __future__ import annotations

import argparse
import getpass
import os
import pwd
import sys
from collections.abc import Sequence

from qsend.cli.parser import EXIT_NO, EXIT_USAGE, Parser
from qsend.cli.tableadmin import (
    WRITING,
    Actions,
    Site,
    is_refused,
    known,
    opened,
    refuse,
    run_action,
    say,
    say_rows,
)
from qsend.core.errors import PermFail
from qsend.core.model import Account
from qsend.core.newrows import (
    Objection,
    Objections,
    extends,
    home_objections,
    name_objections,
)
from qsend.core.passwords import GIVEN_MAX, Kind, kind_of
from qsend.core.sqlrules import Machine, refused
from qsend.sysio import mailhomes, newpassword
from qsend.sysio.sqltables import COLUMNS, Shown, SqlTables
from qsend.sysio.userdb import UserDb, owner_of

OWNER = "popuser"
"""The account of the machine that owns the homes, unless another is given."""

_PASSWORDS = """\
The password is asked for on a terminal, else it is the first line of standard input
(the second, after `--admin-password-file -`); never an argument, where every process
could see it. --generate makes one up and prints it; with --no-password nobody can log
in. --password-type is
  Crypt-Password   the default; a hash of crypt(3)
  MySQL-Password   what PASSWORD() of MySQL 4.1 makes
  Password         as it is: needed for APOP, and open to whoever reads the table"""
_ADDING = f"""\
The home is BASE/NAME, made with a Maildir in it, mode 0700; one that exists is taken
if it belongs to uid and gid. Defaults:
  --owner      {OWNER}: the account of the machine whose uid, gid and home (BASE)
               are used
  --base DIR   the home of the owner; it must be there, so that uid may pass
  --uid --gid  those of the owner
  --directory  BASE/NAME
uid 0, accounts of qsend and uids below control/sqlminuid are refused: they get no
mail by a row.

{_PASSWORDS}

examples, as root:
  useradd --uid 800 --home-dir /mail {OWNER}; install -d -m 711 -o {OWNER} /mail
  qsend user add joe --generate
  qsend virtual add joe@example.org joe
  qsend rcpthost add example.org"""


def main(argv: Sequence[str]) -> int:
    """Run `user ACTION ...`."""
    return run_action(_parser(argv[0]).parse_args(argv[1:]), argv[0])


def _parser(command: str) -> Parser:
    parser = Parser(command, "Mailboxes of virtual users in the database.", WRITING)
    actions = Actions(parser)

    words = "make a user, its home and Maildir"
    add = actions.add(_add, "add", words, _ADDING, is_adding=True)
    add.add_argument("name", metavar="NAME", help="the user; may hold - and @")
    add.add_argument("--owner", metavar="ACCOUNT", default=OWNER)
    add.add_argument("--base", metavar="DIR")
    add.add_argument("--uid", type=int)
    add.add_argument("--gid", type=int)
    add.add_argument("--directory", metavar="HOME", help="the home itself")
    add.add_argument(
        "--no-home", action="store_true", help="write the row alone; make no home"
    )
    _add_password(add)

    change = actions.add(_passwd, "passwd", "set a password", _PASSWORDS)
    change.add_argument("name", metavar="NAME")
    _add_password(change)

    words = "Logins are refused, also with the right password; mail still comes."
    for run, name, summary in (
        (_suspend, "suspend", "refuse logins; mail still comes"),
        (_suspend, "resume", "allow logins again"),
    ):
        actions.add(run, name, summary, words).add_argument("name", metavar="NAME")

    remove = actions.add(_remove, "remove", "remove a user", _REMOVING)
    remove.add_argument("name", metavar="NAME")
    remove.add_argument(
        "--rows", action="store_true", help="also rows of virtual and alias for it"
    )
    remove.add_argument(
        "--delete-home", action="store_true", help="also the home, with all mail"
    )

    shown = actions.add(_list, "list", "list users", "Passwords are not shown.")
    shown.add_argument("name", metavar="NAME", nargs="?")
    return parser


_REMOVING = """\
The row of mailbox is removed. What stays is told: the home with its mail, and rows of
virtual and alias, whose mail then goes to alias or bounces. --delete-home removes the
home, for good; it refuses links, a home of another uid or gid, and one that holds the
home of another user."""


def _add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-type",
        metavar="TYPE",
        default=Kind.CRYPT.value,
        help=", ".join(each.value for each in Kind),
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--generate", action="store_true", help="make one up, print it")
    how.add_argument("--no-password", action="store_true", help="nobody can log in")


# Actions


def _add(args: argparse.Namespace, site: Site) -> int:
    name = args.name.lower()
    account, home = _place(args, name)
    kind = _kind(args)
    with opened(args, site) as tables:
        objections = [
            *name_objections(name, known(site, tables, name), account, site.options),
            *home_objections(home, account),
            *_account_objections(site, account),
            *_neighbours(tables, name, home),
        ]
        if is_refused(args.command, objections, is_forced=args.force):
            return EXIT_USAGE
        password, stored = _password(args, kind)
        made = [] if args.no_home else mailhomes.make_home(home, account)
        row: dict[str, str | int] = {
            "username": name,
            "uid": account.uid,
            "gid": account.gid,
            "home": home,
        }
        secret = {"password": stored, "password_type": kind.value}
        tables.insert("mailbox", {**row, **secret, "suspended": "N"})
    facts: dict[str, object] = {**row, "password_type": kind.value, "made": made}
    lines = [f"made {path}" for path in made]
    lines.append(f"user {name}: uid {account.uid}, gid {account.gid}, home {home}")
    if args.generate:
        facts["password"] = password
        lines.append(f"password: {password}")
    say(args, facts, lines)
    return 0


def _passwd(args: argparse.Namespace, site: Site) -> int:
    name, kind = args.name.lower(), _kind(args)
    with opened(args, site) as tables:
        if _find(tables, name) is None:
            return _nobody(args, name)
        password, stored = _password(args, kind)
        tables.update(
            "mailbox",
            {"password": stored, "password_type": kind.value},
            {"username": name},
        )
    facts: dict[str, object] = {"username": name, "password_type": kind.value}
    lines = [f"user {name}: {'no password' if args.no_password else 'password set'}"]
    if args.generate:
        facts["password"] = password
        lines.append(f"password: {password}")
    say(args, facts, lines)
    return 0


def _suspend(args: argparse.Namespace, site: Site) -> int:
    name = args.name.lower()
    flag = "Y" if args.action == "suspend" else "N"
    with opened(args, site) as tables:
        if _find(tables, name) is None:
            return _nobody(args, name)
        tables.update("mailbox", {"suspended": flag}, {"username": name})
    now = "may not log in; mail still comes" if flag == "Y" else "may log in"
    say(args, {"username": name, "suspended": flag}, [f"user {name} {now}"])
    return 0


def _remove(args: argparse.Namespace, site: Site) -> int:
    name = args.name.lower()
    with opened(args, site) as tables:
        row = _find(tables, name)
        if row is None:
            return _nobody(args, name)
        leading = {
            each: list(tables.rows(each, {"username": name}))
            for each in ("virtual", "alias")
        }
        home = str(row["home"])
        if args.delete_home:
            _delete_home(tables, row)
        tables.delete("mailbox", {"username": name})
        if args.rows:
            for each in leading:
                tables.delete(each, {"username": name})
    lines = [f"user {name} is removed"]
    lines.append(f"{home} {'is removed' if args.delete_home else 'stays'}")
    for each, rows in leading.items():
        if rows:
            stay = "are removed" if args.rows else "stay, and lead to nobody"
            lines.append(f"rows of {each} for it: {len(rows)}; they {stay}")
    say(
        args,
        {
            "removed": row,
            "home_removed": args.delete_home,
            "rows_removed": args.rows,
            **leading,
        },
        lines,
    )
    return 0


def _list(args: argparse.Namespace, site: Site) -> int:
    where = {"username": args.name.lower()} if args.name else None
    with opened(args, site) as tables:
        return say_rows(args, COLUMNS["mailbox"], tables.rows("mailbox", where))


# Parts


def _place(args: argparse.Namespace, name: str) -> tuple[Account, str]:
    """uid and gid, and the home. Raises: PermFail when there is no such owner."""
    uid, gid, base = args.uid, args.gid, args.base
    if uid is None or gid is None or (base is None and args.directory is None):
        try:
            entry = pwd.getpwnam(args.owner)
        except KeyError:
            raise PermFail(
                f"this machine has no account {args.owner} to own the home: make one"
                " (`qsend user add --help`), name another with --owner, or give"
                " --uid, --gid and --base"
            ) from None
        uid = entry.pw_uid if uid is None else uid
        gid = entry.pw_gid if gid is None else gid
        base = base or entry.pw_dir
    if args.directory is None and ("/" in name or name in (".", "..")):
        raise PermFail(f"{name} is no name of a directory; give --directory")
    home = args.directory or f"{os.path.abspath(base).rstrip('/')}/{name}"
    return Account(uid=uid, gid=gid), home


def _account_objections(site: Site, account: Account) -> Objections:
    users = UserDb(site.home, site.accounts, single_user=site.single_user)
    machine = Machine(
        accounts=site.accounts,
        single_user=site.single_user,
        account=users.account,
        fallback=users.fallback,
        owner=owner_of,
    )
    reason = refused(account.uid, site.options, machine)
    if reason is not None:
        yield Objection(text=f"uid {account.uid} gets no mail by a row: {reason}")
    if account.gid == 0:
        yield Objection(text="gid 0 is root's group", may_force=True)


def _neighbours(tables: SqlTables, name: str, home: str) -> Objections:
    for shorter in extends(name):
        if tables.has("mailbox", {"username": shorter}):
            extension = name[len(shorter) + 1 :]
            yield Objection(
                text=f"mail for {name} goes to {shorter} now, as its extension"
                f" {extension}; it would go to the new user",
                may_force=True,
            )
    for row in tables.rows("mailbox", {"home": home}):
        yield Objection(
            text=f"{home} is the home of {row['username']}: both would read the same"
            " mail; for one more address, use `qsend virtual add`",
            may_force=True,
        )


def _kind(args: argparse.Namespace) -> Kind:
    kind = kind_of(args.password_type)
    if kind is None:
        names = ", ".join(each.value for each in Kind)
        raise PermFail(f"no password type {args.password_type!r}; there are {names}")
    return kind


def _password(args: argparse.Namespace, kind: Kind) -> tuple[str, str]:
    """The password, and what is stored for it. Raises: PermFail, TempFail."""
    if args.no_password:
        return "", ""
    if args.generate:
        password = newpassword.generate()
    elif sys.stdin.isatty() and args.admin_password_file != "-":
        password = getpass.getpass("new password: ")
        if getpass.getpass("once more: ") != password:
            raise PermFail("the two passwords differ")
    else:
        line = sys.stdin.buffer.readline(GIVEN_MAX + 2)
        try:
            password = line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            raise PermFail("the password is not UTF-8") from None
    return password, newpassword.stored(password, kind)


def _find(tables: SqlTables, name: str) -> Shown | None:
    return next(tables.rows("mailbox", {"username": name}), None)


def _nobody(args: argparse.Namespace, name: str) -> int:
    return refuse(args, f"mailbox has no {name}", EXIT_NO)


def _delete_home(tables: SqlTables, row: Shown) -> None:
    """Raises: PermFail, TempFail; then the row stays."""
    home = str(row["home"])
    if os.path.lexists(home):
        others = [
            str(each["home"])
            for each in tables.rows("mailbox")
            if each["username"] != row["username"]
        ]
        account = Account(uid=int(row["uid"]), gid=int(row["gid"]))
        if account.uid == 0:
            raise PermFail("uid 0 owns no home of a virtual user")
        mailhomes.delete_home(home, account, others)
