"""The control files of the database, all of them as one value.

They are read only where control/sqlserver exists; that one holds a password and
goes to lookup alone.
Source: docs/VIRTUAL.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.sqlrules import SqlOptions
from qsend.formats.control import Controls, number_file
from qsend.formats.sqlqueries import SqlQueries, parse_sqlqueries
from qsend.formats.sqlserver import SqlServer, parse_sqlserver

NUMBERS: Mapping[str, tuple[int, int]] = {
    "sqlminuid": (100, 2**31 - 1),
    "magicforwarding": (0, 1),
    "sqlpatterns": (0, 1),
    "sqlblankalias": (1, 1),
    "sqllog": (0, 1),
}
"""The one-number files: default and most."""

SQL_FILES = frozenset({"sqlserver", "sqlqueries", *NUMBERS})
"""Names of the control files that SqlSettings is made of, besides those of
Controls (envnoathost, locals)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlSettings:
    """How to ask the database. `log_queries` is control/sqllog."""

    servers: tuple[SqlServer, ...]
    queries: SqlQueries
    options: SqlOptions
    log_queries: bool = False


def parse_sql(files: Mapping[str, bytes], controls: Controls) -> SqlSettings | None:
    """The settings of a snapshot, or None without control/sqlserver.

    Args:
        files: name of each control file that exists, and its content.
        controls: the same snapshot, parsed.
    Raises: ConfigError with every fault in any of SQL_FILES.
    """
    faults: list[ConfigFault] = []
    numbers = {
        name: number_file(name, files.get(name), (default, 0, most), faults)
        for name, (default, most) in NUMBERS.items()
    }
    queries = servers = None
    try:
        queries = parse_sqlqueries(files.get("sqlqueries"))
    except ConfigError as exc:
        faults += exc.faults
    if "sqlserver" in files:
        try:
            servers = parse_sqlserver(files["sqlserver"])
        except ConfigError as exc:
            faults += exc.faults
    if faults:
        raise ConfigError(faults)
    if servers is None or queries is None:
        return None
    options = SqlOptions(
        envnoathost=controls.envnoathost,
        locals=controls.locals,
        minuid=numbers["sqlminuid"],
        magicforwarding=bool(numbers["magicforwarding"]),
        patterns=bool(numbers["sqlpatterns"]),
        blank_catchall=bool(numbers["sqlblankalias"]),
    )
    return SqlSettings(
        servers=servers,
        queries=queries,
        options=options,
        log_queries=bool(numbers["sqllog"]),
    )
