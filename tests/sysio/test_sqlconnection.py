"""One connection to a real server: what comes back, and what is not let through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qsend.formats.sqlserver import SqlServer, parse_sqlserver
from qsend.sysio.sqlconnection import QueryRefused, ServerLost, SqlConnection
from tests.mariadb import Database


@pytest.fixture
def connection(database: Database) -> Iterator[SqlConnection]:
    made = SqlConnection(parse_sqlserver(database.sqlserver))
    yield made
    made.close()


def test_rows_are_bytes_and_integers_and_values_stay_what_they_are(
    connection: SqlConnection,
) -> None:
    odd = bytes(range(256)) + b"' OR 1=1 -- %s %(a)s \\"
    rows = connection.run("SELECT 3, CAST(%(a)s AS BINARY), NULL, 1.5 + 1", {"a": odd})
    assert rows == ((3, odd, None, b"2.5"),)


def test_rows_that_came_meanwhile_are_seen(
    connection: SqlConnection, database: Database
) -> None:
    count = "SELECT COUNT(*) FROM rcpthosts"
    assert connection.run(count, {}) == ((0,),)
    database.insert("rcpthosts", ("a.example",))
    assert connection.run(count, {}) == ((1,),)


def test_nothing_can_be_written(connection: SqlConnection, database: Database) -> None:
    database.server.execute(f"GRANT ALL ON {database.name}.* TO {database.login}@'%'")
    with pytest.raises(QueryRefused, match="READ ONLY"):
        connection.run("INSERT INTO rcpthosts VALUES ('a.example')", {})
    # A second statement in one text is a syntax error, as with any injection.
    with pytest.raises(QueryRefused, match="1064"):
        connection.run("SELECT 1; SELECT 2", {})


def test_a_server_of_many_is_found_by_its_socket_and_by_its_port(
    database: Database,
) -> None:
    by_socket = database.control({"socket": str(database.server.socket_path)})
    for content in (by_socket, database.sqlserver):
        [server] = parse_sqlserver(content)
        nobody = SqlServer(host="127.0.0.1", port=1, login="a", password="b", db="c")
        made = SqlConnection([nobody, server])
        assert made.run("SELECT 1", {}) == ((1,),)
        made.close()


def test_every_server_is_named_when_none_answers() -> None:
    servers = [
        SqlServer(host="127.0.0.1", port=1, login="a", password="p4ss", db="c"),
        SqlServer(host="x", socket="/nowhere", login="a", password="p4ss", db="c"),
    ]
    with pytest.raises(
        ServerLost, match=r"127.0.0.1:1: 2003 .*; /nowhere: 2003"
    ) as info:
        SqlConnection(servers).run("SELECT 1", {})
    assert "p4ss" not in str(info.value)
