"""qsend virtual, alias, rcpthost: rows of the tables that lead mail.

Source: docs/VIRTUAL.md. Exit codes: 0, 1 nothing there, 100 wrong usage or refused,
111 temporary.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

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
from qsend.core.newrows import (
    Objection,
    Objections,
    alias_objections,
    alias_row,
    host_problem,
    split_address,
    virtual_objections,
)
from qsend.core.relay import host_keys
from qsend.core.sqlrules import FORWARD
from qsend.sysio.sqltables import COLUMNS, Shown, SqlTables

_VIRTUAL = """\
ADDRESS is USER@HOST, or @HOST for every address of the host that no other row takes.
Its mail goes to the user NAME, or to NAME-EXT. EXT may be @: then what stands before
the @ of the address is appended. The user must be there, and the host should be in
rcpthosts, or nobody may send to it from outside.

  qsend virtual add diane.p@tterson.net dmp
  qsend virtual add geocities@babasse.com iain --ext legacy
  qsend virtual add @iain.cx iain --ext @"""

_ALIAS = """\
INSTRUCTION is a line as in a dot-qmail file, and decides in place of those files:
  |COMMAND        run a program
  ./Maildir/      a Maildir below the user's home; without / at its end, an mbox
  /PATH/          a Maildir or mbox by its full path
  USER@HOST       send on; without @HOST, to a user here
It is for mail to NAME, or with --ext to NAME-EXT; EXT may be @ for every extension
without rows of its own. Several are a list. The user must be there; the user alias
takes names that nobody has:

  qsend alias add dmp dmp@nigelj.force9.co.uk
  qsend alias add iain --ext test /home/iain/test/
  qsend alias add alias --ext customers ann@company1.com"""

_RCPTHOST = """\
Mail for these hosts is accepted from outside, besides those of control/rcpthosts;
.HOST stands for every host below.

  qsend rcpthost add example.org .example.org"""


def main(argv: Sequence[str]) -> int:
    """Run `virtual`, `alias` or `rcpthost` ACTION ..."""
    make, summary = _PARSERS[argv[0]]
    parser = Parser(argv[0], summary, WRITING)
    make(Actions(parser))
    return run_action(parser.parse_args(argv[1:]), argv[0])


def _virtual_parser(actions: Actions) -> None:
    words = "lead mail for an address to a user"
    add = actions.add(_virtual_add, "add", words, _VIRTUAL, is_adding=True)
    add.add_argument("address", metavar="ADDRESS")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--ext", metavar="EXT", default="")
    words = "remove the row of an address"
    remove = actions.add(_virtual_remove, "remove", words, _VIRTUAL)
    remove.add_argument("address", metavar="ADDRESS")
    listed = actions.add(_virtual_list, "list", "list addresses", _VIRTUAL)
    listed.add_argument("--user", metavar="NAME", help="only those of a user")
    listed.add_argument("--host", metavar="HOST", help="only those of a host")


def _alias_parser(actions: Actions) -> None:
    words = "have mail of a user or extension follow an instruction"
    add = actions.add(_alias_add, "add", words, _ALIAS, is_adding=True)
    add.add_argument("name", metavar="NAME")
    add.add_argument("instruction", metavar="INSTRUCTION")
    words = "remove instructions"
    remove = actions.add(_alias_remove, "remove", words, _ALIAS)
    remove.add_argument("name", metavar="NAME")
    remove.add_argument(
        "instruction", metavar="INSTRUCTION", nargs="?", help="default: all of them"
    )
    for each in (add, remove):
        each.add_argument("--ext", metavar="EXT", default="")
    listed = actions.add(_alias_list, "list", "list instructions", _ALIAS)
    listed.add_argument("name", metavar="NAME", nargs="?")


def _rcpthost_parser(actions: Actions) -> None:
    add = actions.add(_rcpthost_add, "add", "accept mail for hosts", _RCPTHOST)
    words = "accept it no more"
    remove = actions.add(_rcpthost_remove, "remove", words, _RCPTHOST)
    for each in (add, remove):
        each.add_argument("hosts", metavar="HOST", nargs="+")
    actions.add(_rcpthost_list, "list", "list hosts", _RCPTHOST)


_PARSERS: Mapping[str, tuple[Callable[[Actions], None], str]] = {
    "virtual": (_virtual_parser, "Addresses of virtual hosts in the database."),
    "alias": (_alias_parser, "Instructions of users in the database."),
    "rcpthost": (_rcpthost_parser, "Hosts whose mail is accepted, in the database."),
}


# virtual


def _virtual_add(args: argparse.Namespace, site: Site) -> int:
    user, host = split_address(args.address)
    name, ext = args.name.lower(), args.ext
    where = {"virtual_username": user, "virtual_host": host}
    with opened(args, site) as tables:
        objections = [
            *virtual_objections(
                args.address, name, ext, known(site, tables, name), site.options
            ),
            *_taken(tables, where),
            *_forwarded_again(site, tables, name, ext, where),
        ]
        if is_refused(args.command, objections, is_forced=args.force):
            return EXIT_USAGE
        row = {"username": name, "ext": ext, **where}
        tables.insert("virtual", row)
        notes = _unaccepted(tables, host)
    target = f"{name}-{'...' if ext == '@' else ext}" if ext else name
    line = f"mail for {user or 'anybody'}@{host} goes to {target}"
    say(args, {"added": row, "notes": notes}, [line, *notes])
    return 0


def _taken(tables: SqlTables, where: Mapping[str, str]) -> Objections:
    for row in tables.rows("virtual", where):
        yield Objection(
            text=f"virtual has a row for {where['virtual_username']}"
            f"@{where['virtual_host']} already: it leads to {_target(row)}"
        )


def _target(row: Shown) -> str:
    return f"{row['username']}-{row['ext']}" if row["ext"] else str(row["username"])


def _forwarded_again(
    site: Site, tables: SqlTables, name: str, ext: str, where: Mapping[str, str]
) -> Objections:
    """Rows of magic forwarding that would lead from one to the next."""
    if name != FORWARD.decode() or not site.options.magicforwarding:
        return
    user, host = split_address(ext)
    target = {"username": name, "virtual_username": user, "virtual_host": host}
    address = f"{where['virtual_username']}@{where['virtual_host']}"
    loops = tables.has("virtual", target) or tables.has(
        "virtual", {"username": name, "ext": address}
    )
    if loops:
        yield Objection(
            text=f"{address} and {ext} would be forwarded twice, which is refused"
            " as a misconfiguration: lead the first straight to the last"
        )


def _unaccepted(tables: SqlTables, host: str) -> list[str]:
    keys = (key.decode() for key in host_keys(host.encode()))
    if any(tables.has("rcpthosts", {"host": key}) for key in keys):
        return []
    return [
        f"note: {host} is not in the rcpthosts table: unless control/rcpthosts has"
        f" it, add it with `qsend rcpthost add {host}`"
    ]


def _virtual_remove(args: argparse.Namespace, site: Site) -> int:
    user, host = split_address(args.address)
    where = {"virtual_username": user, "virtual_host": host}
    return _remove(args, site, "virtual", where)


def _virtual_list(args: argparse.Namespace, site: Site) -> int:
    where = {"username": args.user, "virtual_host": args.host}
    return _list(args, site, "virtual", where)


# alias


def _alias_add(args: argparse.Namespace, site: Site) -> int:
    name, ext, line = args.name.lower(), args.ext.lower(), args.instruction.strip()
    user, host = alias_row(line)
    row = {"username": name, "alias": ext, "alias_username": user, "alias_host": host}
    with opened(args, site) as tables:
        objections = list(
            alias_objections(name, ext, line, known(site, tables, name), site.options)
        )
        if not objections and tables.has("alias", row):
            objections = [Objection(text="alias has this row already")]
        if is_refused(args.command, objections, is_forced=args.force):
            return EXIT_USAGE
        tables.insert("alias", row)
        where = {"username": name, "alias": ext}
        count = sum(1 for _ in tables.rows("alias", where))
    whose = f"{name}-{ext}" if ext else name
    lines = [f"mail for {whose} meets {line}"]
    if count > 1:
        lines.append(f"which is one of {count} instructions; each is carried out")
    say(args, {"added": row, "instructions": count}, lines)
    return 0


def _alias_remove(args: argparse.Namespace, site: Site) -> int:
    where = {"username": args.name.lower(), "alias": args.ext.lower()}
    if args.instruction is not None:
        user, host = alias_row(args.instruction.strip())
        where |= {"alias_username": user, "alias_host": host}
    return _remove(args, site, "alias", where)


def _alias_list(args: argparse.Namespace, site: Site) -> int:
    return _list(args, site, "alias", {"username": args.name})


# rcpthosts


def _rcpthost_add(args: argparse.Namespace, site: Site) -> int:
    hosts = [host.lower() for host in args.hosts]
    problems = [problem for problem in map(host_problem, hosts) if problem]
    if problems:
        return refuse(args, "; ".join(problems))
    with opened(args, site) as tables:
        new = [host for host in hosts if not tables.has("rcpthosts", {"host": host})]
        for host in new:
            tables.insert("rcpthosts", {"host": host})
    lines = [
        f"mail for {host} is accepted{'' if host in new else ' already'}"
        for host in hosts
    ]
    say(args, {"added": new}, lines)
    return 0


def _rcpthost_remove(args: argparse.Namespace, site: Site) -> int:
    removed: list[str] = []
    with opened(args, site) as tables:
        for host in map(str.lower, args.hosts):
            removed += [host for _ in tables.delete("rcpthosts", {"host": host})]
    say(args, {"removed": removed}, [f"removed {host}" for host in removed])
    if len(set(removed)) < len(set(map(str.lower, args.hosts))):
        return refuse(args, "rcpthosts has not all of them", EXIT_NO)
    return 0


def _rcpthost_list(args: argparse.Namespace, site: Site) -> int:
    return _list(args, site, "rcpthosts", {})


# shared


def _remove(
    args: argparse.Namespace, site: Site, table: str, where: Mapping[str, str]
) -> int:
    with opened(args, site) as tables:
        removed = tables.delete(table, where)
    if not removed:
        return refuse(args, f"{table} has no such row", EXIT_NO)
    lines = [f"removed {', '.join(map(repr, row.values()))}" for row in removed]
    say(args, {"removed": removed}, lines)
    return 0


def _list(
    args: argparse.Namespace, site: Site, table: str, where: Mapping[str, str | None]
) -> int:
    wanted = {key: value.lower() for key, value in where.items() if value is not None}
    with opened(args, site) as tables:
        return say_rows(args, COLUMNS[table], tables.rows(table, wanted))
