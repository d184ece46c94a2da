"""The controls of the database together."""

from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.core.sqlrules import SqlOptions
from qsend.formats.control import Controls
from qsend.formats.sqlcontrols import NUMBERS, parse_sql

CONTROLS = Controls(envnoathost=b"e.example", locals=frozenset({b"l.example"}))
SERVER = {"sqlserver": b"server s\nlogin l\npassword p\ndb d\n"}


def test_without_sqlserver_there_is_no_database() -> None:
    assert parse_sql({}, CONTROLS) is None
    assert parse_sql({"sqlminuid": b"7\n"}, CONTROLS) is None


def test_defaults() -> None:
    settings = parse_sql(SERVER, CONTROLS)
    assert settings is not None
    assert [server.host for server in settings.servers] == ["s"]
    assert settings.options == SqlOptions(
        envnoathost=b"e.example",
        locals=frozenset({b"l.example"}),
        minuid=100,
        magicforwarding=False,
        patterns=False,
        blank_catchall=True,
    )
    assert not settings.log_queries


def test_every_file_is_used() -> None:
    files = {
        "sqlminuid": b"7\n",
        "magicforwarding": b"1\n",
        "sqlpatterns": b"1\n",
        "sqlblankalias": b"0\n",
        "sqllog": b"1\n",
        "sqlqueries": b"rcpthost=SELECT :host AS host\n",
    }
    settings = parse_sql(SERVER | files, CONTROLS)
    assert settings is not None
    options = settings.options
    assert (options.minuid, options.magicforwarding) == (7, True)
    assert (options.patterns, options.blank_catchall) == (True, False)
    assert settings.log_queries
    assert ("rcpthost", "SELECT :host AS host") in settings.queries.texts


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("content", [b"", b"yes\n", b"-1\n", b"2147483648\n", b"1 1\n"])
def test_number_that_is_none(name: str, content: bytes) -> None:
    with pytest.raises(ConfigError, match=f"control/{name}:1: expected a number"):
        parse_sql({name: content}, CONTROLS)


def test_all_faults_are_told_at_once() -> None:
    files = {"sqlserver": b"x\n", "sqlqueries": b"x\n", "sqllog": b"2\n"}
    with pytest.raises(ConfigError) as caught:
        parse_sql(files, CONTROLS)
    names = {fault.file for fault in caught.value.faults}
    assert names == {"control/sqlserver", "control/sqlqueries", "control/sqllog"}
