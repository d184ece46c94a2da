"""Each rule is tried on rows in memory and on a real MariaDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mariadb import Database, MariaDb
from tests.sqlworld import TABLES, RowTables, SqlTables, World


@pytest.fixture(scope="session")
def shared_database(mariadb: MariaDb) -> Iterator[Database]:
    """The tables of docs/schema.sql, emptied after each test: much quicker."""
    made = Database(mariadb)
    yield made
    made.drop()


@pytest.fixture
def tables(shared_database: Database) -> Iterator[SqlTables]:
    """Empty tables in a real server, asked with the default queries."""
    yield SqlTables(shared_database)
    shared_database.load("".join(f"DELETE FROM `{name}`;" for name in TABLES))


@pytest.fixture(params=["rows", "mariadb"])
def world(request: pytest.FixtureRequest) -> World:
    """Empty tables on a machine without accounts."""
    if request.param == "rows":
        return World(tables=RowTables())
    real: SqlTables = request.getfixturevalue("tables")
    return World(tables=real)
