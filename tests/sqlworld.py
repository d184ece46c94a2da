"""Tables of virtual users to try rules on: as Python rows, or in a real MariaDB.

The fixture `world` runs a test on both: the first tells at once whether a judge is
wrong, the second whether the real queries give what the judges expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from qsend.core.errors import TempFail
from qsend.core.lookups import Locality, YesNo
from qsend.core.model import Account, Accounts, Channel, User
from qsend.core.rewrite import Rules
from qsend.core.sqlalias import ask_instructions, judge_instructions
from qsend.core.sqllocality import (
    Unlisted,
    ask_locality,
    judge_locality,
    settle,
)
from qsend.core.sqllogin import (
    MailboxLogin,
    ask_login,
    ask_rcpthost,
    judge_login,
    judge_rcpthost,
)
from qsend.core.sqlrules import COLUMNS, Ask, Judged, Machine, Part, Row, SqlOptions
from qsend.core.sqluser import ask_user, judge_user
from qsend.core.users import (
    Candidate,
    NoUser,
    Outcome,
    Trouble,
    alias_user,
    passwd_candidates,
    passwd_user,
)
from qsend.formats.sqlqueries import SqlQueries, parse_sqlqueries
from tests.mariadb import Database

TABLES: Mapping[str, tuple[str, ...]] = {
    "mailbox": COLUMNS["login"],
    "virtual": COLUMNS["virtual"],
    "alias": ("username", "alias", "alias_username", "alias_host"),
    "rcpthosts": ("host",),
}
"""The columns of each table in the order of the examples."""

ACCOUNTS = Accounts(
    alias=Account(uid=901, gid=901),
    qmaild=Account(uid=902, gid=901),
    qmaill=Account(uid=903, gid=901),
    qmailp=Account(uid=904, gid=901),
    qmailq=Account(uid=905, gid=905),
    qmailr=Account(uid=906, gid=905),
    qmails=Account(uid=907, gid=905),
    root=Account(uid=0, gid=905),
)
OPTIONS = SqlOptions(envnoathost=b"me.example", locals=frozenset({b"me.example"}))
Cell = str | int | None


class Tables(Protocol):
    """Something that holds rows and answers an Ask."""

    def insert(self, table: str, *rows: Sequence[Cell]) -> None: ...

    def ask(self, ask: Ask) -> Sequence[Row]: ...


class RowTables:
    """Rows in memory, searched as the default queries do."""

    def __init__(self) -> None:
        self._rows: dict[str, list[dict[str, bytes]]] = {name: [] for name in TABLES}

    def insert(self, table: str, *rows: Sequence[Cell]) -> None:
        for row in rows:
            cells = [b"" if cell is None else str(cell).encode() for cell in row]
            self._rows[table].append(dict(zip(TABLES[table], cells, strict=True)))

    def ask(self, ask: Ask) -> Sequence[Row]:
        return [
            (number, *(row[column] for column in COLUMNS[part.query]))
            for number, part in enumerate(ask.parts)
            for row in self._matching(part)
        ]

    def _matching(self, part: Part) -> Iterable[dict[str, bytes]]:
        table, is_match = _QUERIES[part.query]
        return [row for row in self._rows[table] if is_match(row, part.values)]


_Match = Callable[[Mapping[str, bytes], Mapping[str, bytes]], bool]


def _has_name(row: Mapping[str, bytes], values: Mapping[str, bytes]) -> bool:
    return row["username"] == values["username"]


def _has_host(row: Mapping[str, bytes], values: Mapping[str, bytes]) -> bool:
    return row["virtual_host"] == values["host"]


def _is_alias(row: Mapping[str, bytes], values: Mapping[str, bytes]) -> bool:
    return _has_name(row, values) and row["alias"] in (values["alias"], b"@", b"")


def _is_forward(row: Mapping[str, bytes], values: Mapping[str, bytes]) -> bool:
    return row["username"] == b"forward" and row["ext"] == values["ext"]


def _is_virtual(row: Mapping[str, bytes], values: Mapping[str, bytes]) -> bool:
    return _has_host(row, values) and row["virtual_username"] in (values["user"], b"")


def _is_like(row: Mapping[str, bytes], values: Mapping[str, bytes]) -> bool:
    name = row["virtual_username"]
    return _has_host(row, values) and (not name or _like(values["user"], name))


def _like(value: bytes, pattern: bytes) -> bool:
    if not pattern:
        return not value
    if pattern[:1] == b"%":
        return any(_like(value[at:], pattern[1:]) for at in range(len(value) + 1))
    fits = bool(value) and pattern[:1] in (value[:1], b"_")
    return fits and _like(value[1:], pattern[1:])


_QUERIES: Mapping[str, tuple[str, _Match]] = {
    "mailbox": ("mailbox", _has_name),
    "login": ("mailbox", _has_name),
    "virtual": ("virtual", _is_virtual),
    "pattern": ("virtual", _is_like),
    "virtualhost": ("virtual", _has_host),
    "forward": ("virtual", _is_forward),
    "alias": ("alias", _is_alias),
    "rcpthost": ("rcpthosts", lambda row, values: row["host"] == values["host"]),
}


class SqlTables:
    """The tables of docs/schema.sql, asked with the real queries."""

    def __init__(self, database: Database, queries: SqlQueries | None = None) -> None:
        self._database = database
        self._queries = queries or parse_sqlqueries(None)

    def insert(self, table: str, *rows: Sequence[Cell]) -> None:
        self._database.insert(table, *rows)

    def ask(self, ask: Ask) -> Sequence[Row]:
        if not ask.parts:
            return []
        sql, values = self._queries.statement(ask)
        rows = self._database.query(sql, values)
        for row in rows:
            assert not any(isinstance(cell, str) for cell in row), "text comes as bytes"
        return [
            tuple(cell.encode() if isinstance(cell, str) else cell for cell in row)
            for row in rows
        ]


@dataclass(kw_only=True)
class World:
    """Tables, controls, and the accounts and homes of a machine.

    `owners` says whose a home is; homes it does not name belong to whom the
    mailbox row says. None there means that the home does not exist, TempFail that
    it cannot be looked at.
    """

    tables: Tables
    options: SqlOptions = OPTIONS
    virtualdomains: dict[bytes, bytes] = field(default_factory=dict)
    passwd: dict[bytes, Account] = field(default_factory=dict)
    owners: dict[bytes, Account | TempFail | None] = field(default_factory=dict)
    has_alias: bool = True
    single_user: bool = False
    asked: list[Candidate] = field(default_factory=list)

    def insert(self, table: str, *rows: Sequence[Cell]) -> None:
        """Add rows of TABLES. A mailbox row's home becomes its own."""
        self.tables.insert(table, *rows)
        if table == "mailbox":
            for row in rows:
                home = str(row[3]).encode()
                if isinstance(row[1], int) and isinstance(row[2], int):
                    owner = Account(uid=row[1], gid=row[2])
                    self.owners.setdefault(home, owner)

    def mailbox(self, *names: str) -> None:
        """Add mailbox users with nothing special about them."""
        for name in names:
            home = f"/mail/{name}"
            self.insert("mailbox", (name, 800, 100, home, "", "Password", "N"))

    def control(self, **changes: object) -> None:
        """Change options."""
        self.options = replace(self.options, **changes)  # type: ignore[arg-type] # as SqlOptions has them

    def locality(self, address: str) -> Judged[Locality]:
        """What the database says of an address."""
        written = address.encode("latin-1")
        rows = self.tables.ask(ask_locality(written, self.options))
        return judge_locality(rows, written, self.options, self._is_account)

    def route(self, address: str) -> tuple[Channel, bytes] | Unlisted | Trouble:
        """Where an address ends, control/virtualdomains included."""
        answer = self.locality(address).answer
        if isinstance(answer, Trouble):
            return answer
        written = address.encode("latin-1")
        rules = Rules(
            envnoathost=self.options.envnoathost,
            locals=self.options.locals,
            virtualdomains=self.virtualdomains,
        )
        return settle(written, answer, rules)

    def user(self, local: str) -> Judged[Outcome]:
        """Whose a local part is."""
        written = local.encode("latin-1")
        rows = self.tables.ask(ask_user(written, self.options))
        return judge_user(rows, written, self.options, self.machine)

    def instructions(self, user: User) -> Judged[Outcome]:
        """The user as alias rows make it."""
        rows = self.tables.ask(ask_instructions(user))
        return judge_instructions(rows, user, self.options)

    def login(self, name: str) -> Judged[MailboxLogin | Trouble | None]:
        """The mailbox of a login."""
        written = name.encode("latin-1")
        rows = self.tables.ask(ask_login(written))
        return judge_login(rows, written, self.options, self.machine)

    def rcpthost(self, host: str) -> Judged[YesNo]:
        """Whether the table has a host."""
        written = host.encode("latin-1")
        return judge_rcpthost(self.tables.ask(ask_rcpthost(written)), written)

    @property
    def machine(self) -> Machine:
        """This world's accounts and homes."""
        return Machine(
            accounts=ACCOUNTS,
            single_user=self.single_user,
            account=self._account,
            fallback=self._fallback,
            owner=self._owner,
        )

    def _is_account(self, local: bytes) -> bool:
        return any(map(self._account, passwd_candidates(local)))

    def _account(self, candidate: Candidate) -> User | None:
        self.asked.append(candidate)
        account = self.passwd.get(candidate.name)
        if account is None:
            return None
        home = b"/home/" + candidate.name
        return passwd_user(candidate, name=candidate.name, account=account, home=home)

    def _fallback(self, local: bytes) -> User | NoUser:
        if not self.has_alias:
            return NoUser(text=b"unable to find alias user")
        return alias_user(local, ACCOUNTS.alias, b"/var/qmail/alias")

    def _owner(self, home: bytes) -> Account | None:
        owner = self.owners.get(home)
        if isinstance(owner, TempFail):
            raise owner
        return owner


def user_of(judged: Judged[Outcome]) -> User:
    """The user that was found."""
    assert isinstance(judged.answer, User), judged
    return judged.answer


def trouble_of(judged: Judged[object]) -> str:
    """Why the mail waits; it must be in the log, too."""
    assert isinstance(judged.answer, Trouble), judged
    text = judged.answer.text.decode()
    assert any(text in line for line in judged.log), judged
    return text
