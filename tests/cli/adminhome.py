"""A home whose database an administrator writes, by the commands of `qsend`."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qsend.cli.main import main
from tests.mariadb import Database

UID = os.getuid() or 64710
GID = os.getgid() or 64711


@dataclass(kw_only=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> Any:
        return json.loads(self.out)


class AdminHome:
    """Runs commands as the administrator of one database."""

    def __init__(
        self,
        path: Path,
        database: Database,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.home = path / "home"
        self.mail = path / "mail"
        self.database = database
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self.home.mkdir(mode=0o755)
        self.mail.mkdir()
        self.mail.chmod(0o711)
        os.chown(self.mail, UID, GID)
        done = self.bare("setup", "--home", str(self.home), "--me", "here.example")
        assert done.code == 0, done
        self.control("sqlserver", database.sqlserver.decode())
        self.admin_file = path / "admin"
        login = {"login": database.admin_login, "password": database.admin_password}
        lines = database.control({"port": str(database.server.port), **login})
        self.admin_file.write_bytes(lines)
        self.admin_file.chmod(0o600)

    def control(self, name: str, content: str) -> None:
        path = self.home / "control" / name
        path.write_text(content)
        path.chmod(0o600 if name == "sqlserver" else 0o644)

    def run(self, command: str, *words: str, stdin: bytes = b"") -> Ran:
        """`qsend COMMAND --home ... WORDS`, as the administrator."""
        options = ("--home", str(self.home), "--admin-file", str(self.admin_file))
        return self.bare(command, *options, *words, stdin=stdin)

    def bare(self, *words: str, stdin: bytes = b"") -> Ran:
        """Any command line."""
        stream = io.TextIOWrapper(io.BytesIO(stdin))
        self._monkeypatch.setattr("sys.stdin", stream)
        self._capsys.readouterr()
        code = main(words)
        out, err = self._capsys.readouterr()
        return Ran(code=code, out=out, err=err)

    def add(self, name: str, *more: str, stdin: bytes = b"secret\n") -> Ran:
        """`qsend user add` of a user below `mail`."""
        place = ("--base", str(self.mail), "--uid", str(UID), "--gid", str(GID))
        return self.run("user", "add", name, *place, *more, stdin=stdin)

    def rows(self, table: str, columns: str = "*") -> list[tuple[object, ...]]:
        return [*self.database.query(f"SELECT {columns} FROM `{table}` ORDER BY 1")]


@pytest.fixture
def admin_home(
    open_tmp: Path,
    database: Database,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> AdminHome:
    """A home with empty tables in a real MariaDB."""
    return AdminHome(open_tmp, database, capsys, monkeypatch)
