"""qsend check looks at the database, and for a user called forward."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsend.core.errors import TempFail
from qsend.core.model import Account
from qsend.sysio import passwd, sqlcheck
from qsend.sysio.cdbmaker import fill
from qsend.sysio.sqlcheck import Findings
from tests.mariadb import Database, MariaDb
from tests.sqlworld import ACCOUNTS

MAGIC = {"magicforwarding": b"1\n"}


def inspect(home: Path, sqlserver: bytes, **more: bytes) -> Findings:
    files = {"me": b"me.example\n", "sqlserver": sqlserver, **more}
    return sqlcheck.inspect(str(home), files, ACCOUNTS, single_user=False)


def test_without_a_database_nothing_is_said(tmp_path: Path) -> None:
    files = {"me": b"me.example\n", **MAGIC}
    found = sqlcheck.inspect(str(tmp_path), files, ACCOUNTS, single_user=False)
    assert found == Findings()


def test_good_database_has_no_findings(tmp_path: Path, database: Database) -> None:
    assert inspect(tmp_path, database.sqlserver, **MAGIC) == Findings()


def test_server_that_is_down_is_a_note(
    tmp_path: Path, own_mariadb: MariaDb, own_database: Database
) -> None:
    own_mariadb.kill()
    found = inspect(tmp_path, own_database.sqlserver)
    assert found.faults == []
    (note,) = found.notes
    assert note.startswith("the database does not answer: 127.0.0.1:")


def test_controls_that_cannot_be_parsed_are_told_elsewhere(tmp_path: Path) -> None:
    assert inspect(tmp_path, b"nonsense\n") == Findings()


def test_query_that_does_not_fit_is_a_fault(tmp_path: Path, database: Database) -> None:
    database.load("ALTER TABLE alias DROP COLUMN alias_host")
    found = inspect(tmp_path, database.sqlserver)
    (fault,) = found.faults
    assert str(fault).startswith("control/sqlserver: query alias: 1054 Unknown column")


def test_right_that_is_missing_is_a_fault(tmp_path: Path, database: Database) -> None:
    server = database.server
    server.execute(f"REVOKE SELECT ON {database.name}.* FROM {database.login}@'%'")
    for table in ("mailbox", "virtual", "alias"):
        name = f"{database.name}.`{table}`"
        server.execute(f"GRANT SELECT ON {name} TO {database.login}@'%'")
    found = inspect(tmp_path, database.sqlserver)
    (fault,) = found.faults
    assert "query rcpthost: 1142 SELECT command denied" in str(fault)


def test_mailbox_row_called_forward_is_a_fault(
    tmp_path: Path, database: Database
) -> None:
    database.insert("mailbox", ("forward", 800, 100, "/f", "", "Password", "N"))
    assert inspect(tmp_path, database.sqlserver) == Findings()
    (fault,) = inspect(tmp_path, database.sqlserver, **MAGIC).faults
    assert str(fault) == (
        "control/magicforwarding: magic forwarding needs the name forward,"
        " but there is a mailbox row of it"
    )


def test_user_of_the_machine_called_forward_is_a_fault(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users").mkdir()
    with (tmp_path / "users/cdb").open("wb") as file:
        fill(
            file,
            [(b"!forward\0", b"forward\x00503\x0078\0/home/forward\0\0"), (b"", b"")],
        )
    owner = tmp_path.stat()
    entry = passwd.PasswdEntry(
        name=b"forward",
        account=Account(uid=owner.st_uid or 1, gid=owner.st_gid),
        home=b"/",
    )
    monkeypatch.setattr(passwd, "by_name", lambda _name: entry)
    monkeypatch.setattr(passwd, "is_user", lambda _entry: True)
    found = inspect(tmp_path, database.sqlserver, **MAGIC)
    assert [fault.problem.split("there is ")[1] for fault in found.faults] == [
        "a line in users/cdb of it",
        "an account of it",
    ]


def test_accounts_that_do_not_answer_are_a_note(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_name: bytes) -> None:
        raise TempFail("no directory server")

    monkeypatch.setattr(passwd, "by_name", unknown)
    found = inspect(tmp_path, database.sqlserver, **MAGIC)
    assert found.notes == [
        "cannot tell whether there is a user forward: no directory server"
    ]
