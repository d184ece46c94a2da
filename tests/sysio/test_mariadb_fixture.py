"""The MariaDB of the tests is a real one, and what its doc string promises."""

from __future__ import annotations

import pymysql
import pytest

from tests.mariadb import Database, MariaDb


def test_reader_may_select_and_no_more(database: Database) -> None:
    database.insert("rcpthosts", ("a.example",))
    assert database.query("SELECT host FROM rcpthosts") == [("a.example",)]
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        database.query("INSERT INTO rcpthosts VALUES ('b.example')")


def test_killed_server_comes_back_with_its_rows(
    own_mariadb: MariaDb, own_database: Database
) -> None:
    own_database.insert("rcpthosts", ("a.example",))
    own_mariadb.kill()
    with pytest.raises(pymysql.err.OperationalError):
        own_database.connect()
    own_mariadb.start()
    assert own_database.query("SELECT host FROM rcpthosts") == [("a.example",)]
    assert own_mariadb.drop_connections(own_database.login) == 1
