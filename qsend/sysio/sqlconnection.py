"""A connection to the first database server that answers. Blocks; for one thread.

Whatever the driver meets becomes one of two errors: no server answers, or it
answers and refuses the query. Must not: decide when to try again.
Source: PyMySQL; the MariaDB knowledge base on server and client error codes.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - for host names; later its file may be hidden
import os
from collections.abc import Mapping, Sequence

import pymysql
from pymysql.connections import Connection
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions
from pymysql.cursors import Cursor

from qsend.core.errors import TempFail
from qsend.core.sqlrules import Row
from qsend.formats.sqlserver import SqlServer
from qsend.sysio import clock
from qsend.sysio.sqldial import dial

Value = bytes | int

CONNECT_S = 3
"""A server of one's own network answers in milliseconds; the next one has a turn."""
READ_S = 5
"""Every query is a few index probes. One that takes longer is as good as lost."""

_AGAIN_S = 1.0
"""A connection lost in less was lost before it was used, and is opened again."""
_DEFAULT_SOCKETS = ("/run/mysqld/mysqld.sock", "/tmp/mysql.sock")
"""Where the C client finds a server that is called localhost."""
_INTEGERS = (
    FIELD_TYPE.TINY,
    FIELD_TYPE.SHORT,
    FIELD_TYPE.INT24,
    FIELD_TYPE.LONG,
    FIELD_TYPE.LONGLONG,
)
_CONVERT = {
    key: convert
    for key, convert in conversions.items()
    if not isinstance(key, int) or key in _INTEGERS
}
"""Integers become int; everything else stays the bytes that the server sent."""
_CLIENT_ERRORS = range(2000, 3000)
"""Errors of the client's own: about the connection, not the query."""
_SERVER_ENDS = frozenset({1040, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1927})
"""Errors of a server that ends, is full, or has lost us."""


class ServerLost(TempFail):
    """No server answers."""


class QueryRefused(TempFail):
    """A server answers, but not to this query."""


class SqlConnection:
    """At most one open connection, to one of several servers."""

    def __init__(self, servers: Sequence[SqlServer]) -> None:
        """`servers` are tried in this order, one that was too slow at last."""
        self._servers = list(servers)
        self._slow: SqlServer | None = None
        self._server: SqlServer | None = None
        self._open: Connection[Cursor] | None = None

    def run(self, sql: str, values: Mapping[str, Value]) -> Sequence[Row]:
        """The rows of a query that only reads.

        A connection that was dropped since its last use is opened again.
        Raises: ServerLost, QueryRefused.
        """
        if self._open is not None:
            begun_mono = clock.mono()
            try:
                return self._query(self._open, sql, values)
            except ServerLost:
                if clock.mono() - begun_mono > _AGAIN_S:
                    self._slow = self._server
                    raise
        return self._query(self.connect(), sql, values)

    def connect(self) -> Connection[Cursor]:
        """Open a connection to the first server that takes it. Raises: ServerLost."""
        self.close()
        problems = []
        for server in sorted(self._servers, key=lambda each: each is self._slow):
            try:
                self._open = _connect(server)
            except ServerLost as exc:
                problems.append(f"{_name(server)}: {exc}")
                continue
            self._server, self._slow = server, None
            return self._open
        raise ServerLost("; ".join(problems))

    def close(self) -> None:
        """Close without a word to the server, which may not listen."""
        if self._open is not None:
            self._open._force_close()  # type: ignore[attr-defined] # not in the stubs
            self._open = None

    def _query(
        self, connection: Connection[Cursor], sql: str, values: Mapping[str, Value]
    ) -> Sequence[Row]:
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchall()
        except pymysql.err.MySQLError as exc:
            if connection.open and not _is_lost(exc):
                raise QueryRefused(_words(exc)) from exc
            self.close()
            raise ServerLost(_words(exc)) from exc
        except Exception as exc:
            # The driver takes what the server sends at its word; what then breaks
            # in it may be anything, and the connection is of no use.
            self.close()
            raise ServerLost(_words(exc)) from exc


def _connect(server: SqlServer) -> Connection[Cursor]:
    try:
        return dial(
            socket_of(server),
            CONNECT_S,
            host=server.host,
            port=server.port or 3306,
            user=server.login,
            password=server.password,
            database=server.db,
            charset="utf8mb4",
            use_unicode=False,
            conv=_CONVERT,
            autocommit=True,
            sql_mode="",
            init_command="SET SESSION TRANSACTION READ ONLY",
            read_timeout=READ_S,
            write_timeout=READ_S,
            program_name="qsend",
        )
    except Exception as exc:
        raise ServerLost(_words(exc)) from exc


def socket_of(server: SqlServer) -> str | None:
    """The path of the socket to connect to, None for TCP."""
    if server.socket or server.host != "localhost" or server.port:
        return server.socket
    return next(filter(os.path.exists, _DEFAULT_SOCKETS), None)


def _is_lost(exc: pymysql.err.MySQLError) -> bool:
    number = exc.args[0] if exc.args else 0
    return number == 0 or number in _CLIENT_ERRORS or number in _SERVER_ENDS


def _words(exc: Exception) -> str:
    """What the driver says, with the number of the error."""
    said = " ".join(map(str, exc.args)) if exc.args else type(exc).__name__
    return " ".join(said.split())[:300]


def _name(server: SqlServer) -> str:
    return server.socket or f"{server.host}:{server.port or 3306}"
