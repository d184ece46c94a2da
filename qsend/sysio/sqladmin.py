"""The database as its administrator has it: an account that may write.

Only programs that an operator calls come here; what runs may SELECT and no more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from qsend.core.errors import ConfigError, ConfigFault, Fatal, TempFail
from qsend.formats.sqlserver import SqlServer
from qsend.sysio.shipped import find_shipped
from qsend.sysio.sqlconnection import CONNECT_S, QueryRefused, socket_of
from qsend.sysio.sqldial import dial

Cell = bytes | str | int | None
Values = Sequence[Cell] | Mapping[str, bytes] | None

_DENIED = frozenset({1045, 1698})
"""Wrong password; and the account whose proof is a uid, of another uid."""
_STATEMENT_S = 60
"""A table is made, or an account: longer than a look-up, yet not for ever."""


class Denied(TempFail):
    """The server does not know the account with this password."""


class SqlAdmin:
    """One connection that may write. Every failure is a TempFail with its words."""

    def __init__(self, server: SqlServer, *, uses_db: bool = True) -> None:
        """Connect to `server`. Raises: Denied, TempFail."""
        path = socket_of(server)
        if path is not None and not os.path.exists(path):
            raise TempFail(f"{path}: there is no such socket; does the server run?")
        try:
            self._connection: Connection[Cursor] = dial(
                path,
                CONNECT_S,
                host=server.host,
                port=server.port or 3306,
                user=server.login,
                password=server.password,
                database=server.db if uses_db else None,
                charset="utf8mb4",
                autocommit=True,
                read_timeout=_STATEMENT_S,
                write_timeout=_STATEMENT_S,
                program_name="qsend",
            )
        except (pymysql.err.MySQLError, OSError) as exc:
            kind = Denied if exc.args and exc.args[0] in _DENIED else TempFail
            raise kind(f"{server.host}: {_words(exc)}") from exc

    def execute(self, sql: str, values: Values = None) -> list[tuple[Cell, ...]]:
        """The rows of one statement; those that change something have none.

        Raises: QueryRefused.
        """
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql, values)
                return list(cursor.fetchall())
        except (pymysql.err.MySQLError, OSError) as exc:
            raise QueryRefused(_words(exc)) from exc

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def read_secret(path: str) -> bytes:
    """A file that only its owner may read: root, or who runs this.

    Raises: ConfigError when others may read it, or it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            content = file.read(65536 + 1)
    except OSError as exc:
        raise _fault(path, f"unreadable: {exc.strerror}") from exc
    if status.st_mode & 0o077:
        raise _fault(path, "others may read or write it; `chmod 600` it")
    if status.st_uid not in (0, os.geteuid()):
        raise _fault(path, "belongs to another user")
    return content


def _fault(path: str, problem: str) -> ConfigError:
    return ConfigError([ConfigFault(file=path, line=0, problem=problem)])


def create_database(admin: SqlAdmin, db: str) -> None:
    """Make the database `db` unless it exists, and use it. Raises: TempFail."""
    name = quoted_name(db)
    admin.execute(
        f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4"
        " COLLATE utf8mb4_bin"
    )
    admin.execute(f"USE {name}")


def create_tables(admin: SqlAdmin) -> Iterator[tuple[str, bool]]:
    """Make the tables of docs/schema.sql in the database in use.

    Yields: each table, and whether it was made; one that exists is left as it is.
    Raises: TempFail; Fatal when the file was left out of this copy.
    """
    path = find_shipped("schema.sql")
    if path is None:
        raise Fatal("docs/schema.sql is not part of this copy of qsend")
    with open(path, encoding="ascii") as file:
        text = re.sub(r"^--.*$", "", file.read(), flags=re.MULTILINE)
    existing = {row[0] for row in admin.execute("SHOW TABLES")}
    for statement in filter(None, map(str.strip, text.split(";"))):
        words = re.match(r"CREATE TABLE IF NOT EXISTS `?(\w+)", statement)
        if words is None:
            raise Fatal(f"{path}: a statement that makes no table")
        admin.execute(statement)
        yield words[1], words[1] not in existing


def grant_reader(admin: SqlAdmin, server: SqlServer, client: str) -> None:
    """Let the account of `server` SELECT from `client`, and make it if need be.

    An account that exists keeps its password. Raises: TempFail.
    """
    admin.execute(
        "CREATE USER IF NOT EXISTS %s@%s IDENTIFIED BY %s",
        (server.login, client, server.password),
    )
    place = granted_name(server.db).replace("%", "%%")
    admin.execute(f"GRANT SELECT ON {place}.* TO %s@%s", (server.login, client))


def excess_rights(server: SqlServer) -> list[str]:
    """What the account of `server` may do besides SELECT, as the server says it.

    Raises: TempFail when it cannot connect.
    """
    admin = SqlAdmin(server)
    try:
        grants = [str(row[0]) for row in admin.execute("SHOW GRANTS")]
    finally:
        admin.close()
    return [
        grant.split(" IDENTIFIED")[0]
        for grant in grants
        if not re.match(r"GRANT (SELECT|USAGE) ON ", grant) or "GRANT OPTION" in grant
    ]


def quoted_name(name: str) -> str:
    """A name of a database or table as it stands in a statement."""
    return "`" + name.replace("`", "``") + "`"


def granted_name(db: str) -> str:
    """A database as a GRANT names it, where `_` and `%` are wildcards."""
    return quoted_name(re.sub(r"([_%\\])", r"\\\1", db))


def _words(exc: Exception) -> str:
    return " ".join(" ".join(map(str, exc.args)).split())[:300]
