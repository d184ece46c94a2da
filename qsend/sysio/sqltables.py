"""Rows of the four tables, as the administrator adds, lists and removes them.

Names of tables and columns come from here, values go beside the statement. Tables
of an operator's own keep their extra columns and get those defaults.
Source: docs/schema.sql.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qsend.core.errors import TempFail
from qsend.sysio.sqladmin import Cell, SqlAdmin, quoted_name

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "mailbox": ("username", "uid", "gid", "home", "password_type", "suspended"),
    "virtual": ("username", "ext", "virtual_username", "virtual_host"),
    "alias": ("username", "alias", "alias_username", "alias_host"),
    "rcpthosts": ("host",),
}
"""What is shown of each table; the password is not."""
_MORE = {"mailbox": ("password",)}
_ORDER: Mapping[str, tuple[str, ...]] = {
    **COLUMNS,
    "virtual": ("virtual_host", "virtual_username", "username", "ext"),
}

Values = Mapping[str, str | int]
Shown = Mapping[str, str | int]
"""A row by column: numbers are numbers, NULL is blank."""


class SqlTables:
    """The tables in the database that `admin` uses."""

    def __init__(self, admin: SqlAdmin) -> None:
        """Have values that do not fit refused instead of cut. Raises: TempFail."""
        self._admin = admin
        admin.execute(
            "SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES')"
        )

    def rows(self, table: str, where: Values | None = None) -> Iterator[Shown]:
        """Rows whose columns have these values, in a stable order. Raises: TempFail."""
        columns = COLUMNS[table]
        condition, values = _condition(table, where or {})
        order = ", ".join(_ORDER[table])
        for row in self._admin.execute(
            f"SELECT {', '.join(columns)} FROM {quoted_name(table)}{condition}"
            f" ORDER BY {order}",
            values,
        ):
            yield dict(zip(columns, map(_shown, row), strict=True))

    def has(self, table: str, where: Values) -> bool:
        """Whether there is such a row. Raises: TempFail."""
        return next(self.rows(table, where), None) is not None

    def insert(self, table: str, row: Values) -> None:
        """Add a row. Raises: TempFail, as when a value does not fit."""
        names = _checked(table, row)
        marks = ", ".join(["%s"] * len(names))
        self._admin.execute(
            f"INSERT INTO {quoted_name(table)} ({', '.join(names)}) VALUES ({marks})",
            list(row.values()),
        )

    def update(self, table: str, row: Values, where: Values) -> None:
        """Change columns of the rows that `where` says. Raises: TempFail."""
        changes = ", ".join(f"{name} = %s" for name in _checked(table, row))
        condition, values = _condition(table, where)
        self._admin.execute(
            f"UPDATE {quoted_name(table)} SET {changes}{condition}",
            [*row.values(), *values],
        )

    def delete(self, table: str, where: Values) -> list[Shown]:
        """Remove rows, and return what they were; `where` is not empty.

        Raises: TempFail.
        """
        found = list(self.rows(table, where))
        condition, values = _condition(table, where)
        if not condition:
            raise TempFail("expected to be told which rows to remove")
        self._admin.execute(f"DELETE FROM {quoted_name(table)}{condition}", values)
        return found


def _condition(table: str, where: Values) -> tuple[str, list[Cell]]:
    names = _checked(table, where)
    words = " AND ".join(f"{name} = %s" for name in names)
    return f" WHERE {words}" if names else "", list(where.values())


def _checked(table: str, row: Values) -> list[str]:
    allowed = (*COLUMNS[table], *_MORE.get(table, ()))
    return [allowed[allowed.index(name)] for name in row]


def _shown(cell: object) -> str | int:
    if cell is None:
        return ""
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    return cell if isinstance(cell, int) else str(cell)
