"""qsend sql init: with real servers, administrators and accounts that may little."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from qsend.cli.main import main
from qsend.formats.sqlserver import parse_sqlserver
from qsend.sysio import shipped
from tests.mariadb import Database, MariaDb


@pytest.fixture
def bare(mariadb: MariaDb) -> Database:
    """A database without tables, and its two accounts."""
    return Database(mariadb, schema="")


def home_for(tmp_path: Path, database: Database) -> Path:
    (tmp_path / "control").mkdir()
    control = tmp_path / "control/sqlserver"
    control.write_bytes(database.sqlserver)
    control.chmod(0o600)
    return tmp_path


def admin_file(tmp_path: Path, database: Database, mode: int = 0o600) -> Path:
    path = tmp_path / "admin"
    login = {"login": database.admin_login, "password": database.admin_password}
    path.write_bytes(database.control({"port": str(database.server.port), **login}))
    path.chmod(mode)
    return path


def init(home: Path, *options: object) -> int:
    return main(["sql", "init", "--home", str(home), *map(str, options)])


def test_init_makes_the_tables_and_is_idempotent(
    tmp_path: Path, bare: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_for(tmp_path, bare)
    admin = admin_file(tmp_path, bare)
    assert init(home, "--admin-file", admin) == 0
    out, err = capsys.readouterr()
    tables = ("mailbox", "virtual", "alias", "rcpthosts")
    made = "".join(f"table {table}: made\n" for table in tables)
    assert out == (
        f"{made}the running system needs this and no more:\n"
        f"  GRANT SELECT ON `{bare.name}`.* TO {bare.login}@its host\n"
    )
    assert err == ""
    bare.insert("mailbox", ("joe", 1, 2, "/joe", "", "Password", "N"))
    bare.insert("alias", ("joe", "", "ann", ""))
    assert init(home, "--admin-file", admin) == 0
    assert capsys.readouterr().out.count("exists, left as it is") == 4
    assert bare.query("SELECT username FROM mailbox") == [("joe",)]
    bare.drop()


def test_columns_have_the_defaults_and_widths(bare: Database, tmp_path: Path) -> None:
    assert (
        init(home_for(tmp_path, bare), "--admin-file", admin_file(tmp_path, bare)) == 0
    )
    long = "u" * 255
    bare.load(
        f"INSERT INTO mailbox (username, uid, gid, home) VALUES ('{long}', 1, 2, '/h');"
        f"INSERT INTO `virtual` (username, virtual_host) VALUES ('{long}', 'v.ex');"
        f"INSERT INTO alias (username, alias_username) VALUES ('{long}', 'ann')"
    )
    rows = bare.query("SELECT username, suspended FROM mailbox")
    assert rows == [(long, "N")]
    rows = bare.query("SELECT ext, virtual_username FROM `virtual`")
    assert rows == [("", "")]
    assert bare.query("SELECT * FROM alias") == [(long, "", "ann", "")]
    rows = bare.query(
        "SELECT DISTINCT table_collation FROM information_schema.tables"
        f" WHERE table_schema = '{bare.name}'"
    )
    assert rows == [("utf8mb4_bin",)]
    bare.drop()


def test_grant_to_makes_an_account_that_may_select_and_no_more(
    mariadb: MariaDb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "control").mkdir()
    content = (
        f"server localhost\nsocket {mariadb.socket_path}\n"
        "login new_one\npassword it's # a\\secret=\ndb new_db%x\n"
    )
    (tmp_path / "control/sqlserver").write_text(content)
    # The root of this server has no password, as at many a local socket.
    assert init(tmp_path, "--grant-to", "%") == 0
    out, err = capsys.readouterr()
    assert "GRANT SELECT ON `new\\_db\\%x`.* TO new_one@%" in out
    assert (out + err).count("note") == 0
    grants = mariadb.execute("SHOW GRANTS FOR new_one@'%'")
    assert len(grants) == 2
    assert str(grants[1][0]) == "GRANT SELECT ON `new\\_db\\%x`.* TO `new_one`@`%`"
    mariadb.execute("DROP DATABASE `new_db%x`")
    mariadb.execute("DROP USER new_one@'%'")


def test_excessive_rights_are_told(
    tmp_path: Path, bare: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_for(tmp_path, bare)
    bare.server.execute(f"GRANT INSERT ON {bare.name}.* TO {bare.login}@'%'")
    assert init(home, "--admin-file", admin_file(tmp_path, bare)) == 0
    out = capsys.readouterr().out
    assert "note: it may do more than it needs: GRANT SELECT, INSERT ON" in out
    assert bare.password not in out
    bare.drop()


def test_password_from_a_file_or_standard_input(
    tmp_path: Path, bare: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_for(tmp_path, bare)
    secret = tmp_path / "secret"
    secret.write_text(f"{bare.admin_password}\nand more\n")
    secret.chmod(0o600)
    login = ("--admin-login", bare.admin_login, "--admin-password-file")
    assert init(home, *login, secret) == 0
    stdin = io.TextIOWrapper(io.BytesIO(f"{bare.admin_password}\n".encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert init(home, *login, "-") == 0
    bare.drop()


def test_terminal_is_asked_when_an_empty_password_does_not_do(
    tmp_path: Path, bare: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_for(tmp_path, bare)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return bare.admin_password

    monkeypatch.setattr("getpass.getpass", answer)
    assert init(home, "--admin-login", bare.admin_login) == 0
    assert asked == [f"password of {bare.admin_login} at 127.0.0.1: "]
    bare.drop()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_admin_file_that_others_may_read_is_refused(
    tmp_path: Path, bare: Database, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_for(tmp_path, bare)
    assert init(home, "--admin-file", admin_file(tmp_path, bare, mode)) == 100
    assert "chmod 600" in capsys.readouterr().err
    bare.drop()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--admin-login", "nobody"), 111, "Access denied"),
        (("--admin-file", "/nowhere"), 100, "/nowhere: unreadable: No such file"),
        (("--admin-file", "x", "--admin-login", "y"), 100, "give no others"),
    ],
)
def test_refusals(
    tmp_path: Path,
    bare: Database,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    assert init(home_for(tmp_path, bare), *options) == code
    assert said in capsys.readouterr().err
    bare.drop()


def test_reader_may_not_init(
    tmp_path: Path, bare: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_for(tmp_path, bare)
    server = parse_sqlserver(bare.sqlserver)[0]
    secret = tmp_path / "secret"
    secret.write_text(server.password)
    secret.chmod(0o600)
    options = ("--admin-login", server.login, "--admin-password-file", secret)
    assert init(home, *options) == 111
    assert "denied" in capsys.readouterr().err
    bare.drop()


def test_without_sqlserver_there_is_nothing_to_make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path) == 100
    assert "control/sqlserver: unreadable: No such file" in capsys.readouterr().err


def test_no_server_is_temporary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "control").mkdir()
    content = b"server localhost\nlogin a\npassword b\ndb c\nsocket /nowhere\n"
    (tmp_path / "control/sqlserver").write_bytes(content)
    assert init(tmp_path) == 111
    assert "qsend sql: /nowhere: there is no such socket" in capsys.readouterr().err


def test_refused_connection_is_temporary(
    tmp_path: Path, own_mariadb: MariaDb, own_database: Database
) -> None:
    home = home_for(tmp_path, own_database)
    own_mariadb.stop()
    assert init(home, "--admin-login", "root") == 111


def test_tables_that_do_not_fit_are_told(
    tmp_path: Path, bare: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_for(tmp_path, bare)
    bare.load("CREATE TABLE alias (username VARCHAR(9), alias VARCHAR(9))")
    query = b"rcpthost=SELECT name AS host FROM rcpthosts WHERE name = :host\n"
    (home / "control/sqlqueries").write_bytes(query)
    assert init(home, "--admin-file", admin_file(tmp_path, bare)) == 1
    out, err = capsys.readouterr()
    assert "table alias: exists, left as it is" in out
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("qsend sql: query alias: 1054 Unknown column")
    assert lines[1].startswith("qsend sql: query rcpthost: 1054 Unknown column 'name'")
    bare.drop()


def test_copy_without_schema_says_so(
    tmp_path: Path, bare: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "_PLACES", ("nowhere",))
    home = home_for(tmp_path, bare)
    assert init(home, "--admin-file", admin_file(tmp_path, bare)) == 111
    bare.drop()


@pytest.mark.root
def test_admin_file_of_another_user_is_refused(
    tmp_path: Path, bare: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_for(tmp_path, bare)
    path = admin_file(tmp_path, bare)
    os.chown(path, 64999, 64999)
    assert init(home, "--admin-file", path) == 100
    assert "belongs to another user" in capsys.readouterr().err
    bare.drop()
