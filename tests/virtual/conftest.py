"""Each rule is tried on rows in memory and on a real MariaDB."""

from __future__ import annotations

import pytest

from tests.mariadb import Database
from tests.sqlworld import RowTables, SqlTables, World


@pytest.fixture(params=["rows", "mariadb"])
def world(request: pytest.FixtureRequest) -> World:
    """Empty tables on a machine without accounts."""
    if request.param == "rows":
        return World(tables=RowTables())
    database: Database = request.getfixturevalue("database")
    return World(tables=SqlTables(database))
