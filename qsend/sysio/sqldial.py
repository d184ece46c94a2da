"""Opening a connection with PyMySQL.

By a socket of the machine the driver leaves its descriptor to the garbage collector
when nobody listens there, so here the descriptor is made for it.
Source: PyMySQL, Connection.connect.
"""

from __future__ import annotations

import socket
from typing import Any

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CR
from pymysql.cursors import Cursor


def dial(path: str | None, connect_timeout: int, **options: Any) -> Connection[Cursor]:
    """A connection by the socket `path`, or with None to host and port of `options`.

    Raises: what the driver raises.
    """
    connection = Connection(
        unix_socket=path,
        connect_timeout=connect_timeout,
        defer_connect=True,
        **options,
    )
    if path is None:
        connection.connect()
        return connection
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(connect_timeout)
        sock.connect(path)
    except OSError as exc:
        sock.close()
        number, words = CR.CR_CONN_HOST_ERROR, f"{path}: {exc.strerror or exc}"
        raise pymysql.err.OperationalError(number, words) from exc
    # As after the driver's own connect: what is said here nobody overhears.
    connection._secure = True  # type: ignore[attr-defined] # not in the stubs
    connection.connect(sock)
    return connection
