"""What stands against a row that an operator wants to add, before it is added.

Rows that would break a rule of the tables are refused; rows that are probably not
meant can be forced. Must not: look at the database or the machine; who asks says
what is there.
Source: docs/VIRTUAL.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qsend.core.errors import TempFail
from qsend.core.model import Account
from qsend.core.sqlalias import instruction_line
from qsend.core.sqllocality import forward_target
from qsend.core.sqlrules import CATCH_ALL_EXT, FORWARD, ID_MAX, SqlOptions
from qsend.core.users import ALIAS, BREAK, passwd_candidates

NAME_MAX = 255
"""Characters of a name, a host, an extension (docs/schema.sql)."""
HOME_MAX = 1024
INSTRUCTION_MAX = 2048

_DELIVERIES = ("|", ".", "/")
_OWN = ("qmaild", "qmaill", "qmailp", "qmailq", "qmailr", "qmails", "root")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Why a row should not be added; `may_force` if the operator may know better."""

    text: str
    may_force: bool = False


Objections = Iterator[Objection]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is there of a user name: in mailbox, on the machine, or in users/cdb.

    `account` is that of passwd, also one that gets no mail, with its `home`.
    """

    in_mailbox: bool = False
    account: Account | None = None
    home: str = ""
    is_assigned: bool = False

    @property
    def is_there(self) -> bool:
        """Whether mail may lead to the user at all."""
        return self.in_mailbox or self.account is not None or self.is_assigned


def text_problem(what: str, value: str, most: int = NAME_MAX) -> str | None:
    """Why a value cannot stand in a column, or None. It may be blank."""
    if not value.isprintable():
        return f"{what} has a character that is not printable, or no UTF-8"
    if value != value.strip():
        return f"{what} starts or ends with a blank"
    if len(value) > most:
        return f"{what} is longer than {most} characters"
    return None


def name_objections(
    name: str, known: Known, account: Account, options: SqlOptions
) -> Objections:
    """Against the name of a new user, who is to get mail as `account`."""
    problem = text_problem("the name", name)
    if not name.strip():
        problem = "the name is blank: a row without a username is a misconfiguration"
    if problem is not None:
        yield Objection(text=problem)
        return
    if known.in_mailbox:
        yield Objection(text=f"mailbox has {name} already")
    if name == FORWARD.decode():
        yield from _forward_objections(options)
    elif name == ALIAS.decode():
        yield Objection(
            text="alias is who takes the mail that nobody else has; a row for it"
            " would take that mail away"
        )
    elif name in _OWN:
        yield Objection(
            text=f"{name} is an account of the system or of qsend; its mail would go"
            " to this mailbox",
            may_force=True,
        )
    elif known.account is not None and known.account.uid != account.uid:
        yield Objection(
            text=f"{name} is an account of this machine (uid {known.account.uid}):"
            f" the row comes first and would take its mail to uid {account.uid}."
            f" To give that account a mailbox row: --uid {known.account.uid} --gid"
            f" {known.account.gid} --directory {known.home}",
            may_force=True,
        )
    elif known.is_assigned:
        yield Objection(
            text=f"users/cdb has {name} and comes first: the row would never be used",
            may_force=True,
        )


def _forward_objections(options: SqlOptions) -> Objections:
    if options.magicforwarding:
        yield Objection(
            text="there must be no user forward with control/magicforwarding: it"
            " stands for rows of virtual that send on"
        )
    else:
        yield Objection(
            text="the name forward belongs to magic forwarding; a user of that name"
            " is in the way once control/magicforwarding is switched on",
            may_force=True,
        )


def home_objections(home: str, account: Account) -> Objections:
    """Against the home of a new user and the numbers beside it."""
    problem = text_problem("the home", home, HOME_MAX)
    if problem is not None:
        yield Objection(text=problem)
    elif not home.startswith("/") or home.strip("/") == "":
        yield Objection(text=f"{home!r} is no absolute path of a home")
    elif any(part in ("", ".", "..") for part in home[1:].split("/")):
        yield Objection(
            text=f"{home!r} is not plain: no //, /./ or /../, no / at its end"
        )
    if not (0 <= account.uid <= ID_MAX and 0 <= account.gid <= ID_MAX):
        yield Objection(text=f"uid and gid are numbers from 0 to {ID_MAX}")


def split_address(address: str) -> tuple[str, str]:
    """(virtual_username, virtual_host), lower case, of `user@host` or `@host`."""
    user, _, host = address.lower().rpartition("@")
    return user, host


def host_problem(host: str) -> str | None:
    """Why something is no host of rcpthosts or virtual, or None."""
    problem = text_problem("the host", host)
    if not host.strip("."):
        problem = "the host is blank"
    elif any(each in host for each in "@ /:%"):
        problem = f"{host!r} is no name of a host"
    return problem


def virtual_objections(
    address: str, username: str, ext: str, known: Known, options: SqlOptions
) -> Objections:
    """Against a row that leads mail for `address` to `username`, or `username-ext`."""
    user, host = split_address(address)
    problems = [
        "expected USER@HOST, or @HOST for a catch-all" if "@" not in address else None,
        host_problem(host),
        text_problem("the address", user),
        text_problem("the user", username),
        text_problem("the extension", ext),
        None
        if username.strip()
        else "the user is blank: a row without a username is a misconfiguration",
    ]
    found = [problem for problem in problems if problem is not None]
    yield from (Objection(text=problem) for problem in found)
    if found:
        return
    if username == FORWARD.decode() and options.magicforwarding:
        yield from _magic_objections(f"{user}@{host}", ext)
    elif username != ALIAS.decode() and not known.is_there:
        yield Objection(text=_nobody(username), may_force=True)
    if host.encode() in options.locals:
        yield Objection(
            text=f"{host} is in control/locals: users of that name come first; take"
            " it out to make it a virtual host",
            may_force=True,
        )
    if not options.patterns and "%" in user:
        yield Objection(
            text=f"{user!r} has a % and control/sqlpatterns is off: only that very"
            " address would match",
            may_force=True,
        )


def _magic_objections(address: str, ext: str) -> Objections:
    try:
        target = forward_target(ext.encode())
    except TempFail:
        yield Objection(
            text="magic forwarding wants the address to send on to as extension:"
            " --ext somebody@elsewhere.example"
        )
        return
    if target.lower() == address.encode():
        yield Objection(text=f"{address} would be forwarded to itself")


def _nobody(username: str) -> str:
    words = f"there is no user {username}, in mailbox or on this machine"
    head, dash, tail = username.partition(BREAK.decode())
    if dash:
        words += f"; for an extension of {head}, say: {head} --ext {tail}"
    return words


def alias_row(line: str) -> tuple[str, str]:
    """(alias_username, alias_host) of one line as in a dot-qmail file."""
    if line.startswith(_DELIVERIES):
        return line[0], line[1:]
    user, at, host = line.removeprefix("&").rpartition("@")
    return (user, host) if at else (host, "")


def alias_objections(
    username: str, ext: str, line: str, known: Known, options: SqlOptions
) -> Objections:
    """Against a row by which mail for `username`, or `username-ext`, meets `line`."""
    problems = [
        text_problem("the user", username),
        text_problem("the extension", ext),
        text_problem("the instruction", line, INSTRUCTION_MAX),
        None if username.strip() else "the user is blank",
        _line_problem(line),
    ]
    found = [problem for problem in problems if problem is not None]
    yield from (Objection(text=problem) for problem in found)
    if found:
        return
    if username == ALIAS.decode():
        if not ext:
            yield Objection(
                text="without --ext this takes mail for alias itself, and, unless"
                " control/sqlblankalias is 0, all mail that nobody else has",
                may_force=True,
            )
    elif not known.is_there:
        yield Objection(
            text=f"{_nobody(username)}; aliased users must exist. For a name that"
            f" nobody has: alias --ext {username}",
            may_force=True,
        )
    if _leads_back(username, ext, line, options):
        yield Objection(
            text=f"{line} is the address itself: the message would come round and"
            " fail; to keep a copy, use ./Maildir/",
            may_force=True,
        )


def _line_problem(line: str) -> str | None:
    """Why a line would be a misconfiguration, or do nothing, or None."""
    if line.startswith(("#", "+")):
        return "lines that start with # or + do not work in the alias table"
    user, host = (cell.encode("utf-8", "replace") for cell in alias_row(line))
    try:
        instruction_line((b"", user, host), "this row")
    except TempFail as exc:
        return str(exc)
    if line[:1] not in _DELIVERIES and " " in line:
        return f"{line!r} is no address; a program starts with |"
    return None


def _leads_back(username: str, ext: str, line: str, options: SqlOptions) -> bool:
    user, host = alias_row(line.lower())
    if user in _DELIVERIES or ext == CATCH_ALL_EXT.decode():
        return False
    if host and host.encode() not in options.locals:
        return False
    own = ext if username == ALIAS.decode() else username + (f"-{ext}" if ext else "")
    return user == own


def extends(name: str) -> list[str]:
    """The shorter names of which `name` would otherwise be an extension."""
    candidates = list(passwd_candidates(name.encode("utf-8", "replace")))
    return [each.name.decode("utf-8", "replace") for each in candidates[1:]]
