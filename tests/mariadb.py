"""A real MariaDB for tests: Debian's mariadbd, in a directory and on ports of its own.

    def test_something(database: Database) -> None:       # a database of its own
        database.load("INSERT INTO mailbox ...")           # the tables are there
        (home / "control/sqlserver").write_bytes(database.sqlserver)
        rows = database.query("SELECT ...")                # may SELECT, no more

One server per test process serves `database`. Tests that pause, kill or restart a
server, or count its connections, take `own_mariadb` and `own_database` instead:

    def test_failover(own_mariadb: MariaDb, own_database: Database) -> None:
        own_mariadb.pause() ... own_mariadb.resume(); own_mariadb.kill() ... .start()
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pymysql
import pytest
from pymysql.connections import Connection
from pymysql.constants import CLIENT
from pymysql.cursors import Cursor

from qsend.sysio import clock
from tests.ports import free_port

ROOT = Path(__file__).parents[1]
SCHEMA = (ROOT / "docs/schema.sql").read_text()
UID = 64988
"""The account of the server when the tests run as root. It has no name."""
START_S = 30
Cell = bytes | str | int | None


def _account() -> dict[str, int | list[int]]:
    if os.getuid() != 0:
        return {}
    return {"user": UID, "group": UID, "extra_groups": []}


class MariaDb:
    """One server; `socket_path` and `port` stay the same when it is started again."""

    def __init__(
        self, place: Path, pristine: Path, *, address: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Make the data directory in `place` (empty) and start; 0 is any port."""
        self.place = place
        self.socket_path = place / "sock"
        self.address = address
        self.port = port
        self._data = place / "data"
        self._log = place / "log"
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(["cp", "-a", str(pristine), str(self._data)], check=True)
        self.start()

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self, *options: str) -> None:
        """Start it (again) and wait until it answers."""
        deadline_mono = clock.mono() + START_S
        while not self._launch(self.port or free_port(), options):
            # The port may have been taken meanwhile; that of an earlier run not.
            assert clock.mono() < deadline_mono, self._log.read_text()[-3000:]

    def stop(self) -> None:
        """End it in order, as an operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It keeps its connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def resume(self) -> None:
        """The end of `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def admin(self, db: str | None = None) -> Connection[Cursor]:
        """A connection that may do everything; the caller closes it."""
        return pymysql.connect(
            unix_socket=str(self.socket_path),
            user="root",
            database=db,
            charset="utf8mb4",
            autocommit=True,
            client_flag=CLIENT.MULTI_STATEMENTS,
            connect_timeout=10,
        )

    def execute(self, sql: str, values: Sequence[Cell] = ()) -> list[tuple[Cell, ...]]:
        """The rows of one statement by the administrator."""
        with closing(self.admin()) as connection, connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())

    @contextmanager
    def twin(self, address: str) -> Iterator[MariaDb]:
        """Another one with the same content and port; this one is started again."""
        self.stop()
        with _place() as place:
            server = MariaDb(place, self._data, address=address, port=self.port)
            try:
                self.start()
                yield server
            finally:
                server.kill()

    def drop_connections(self, login: str) -> int:
        """Cut every connection of an account, as an idle timeout does; how many."""
        listed = self.execute(
            "SELECT id FROM information_schema.processlist WHERE user = %s", (login,)
        )
        for (number,) in listed:
            self.execute("KILL CONNECTION %s", (number,))
        return len(listed)

    def _end(self, signum: int) -> None:
        if self._process is not None:
            self._process.send_signal(signum)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(timeout=30)
            self._process = None

    def _launch(self, port: int, options: Sequence[str]) -> bool:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [
                    "/usr/sbin/mariadbd",
                    "--no-defaults",
                    f"--datadir={self._data}",
                    f"--socket={self.socket_path}",
                    f"--pid-file={self.place}/pid",
                    f"--tmpdir={self.place}",
                    f"--port={port}",
                    f"--bind-address={self.address}",
                    "--skip-name-resolve",
                    "--skip-log-bin",
                    "--performance-schema=off",
                    "--innodb-buffer-pool-size=32M",
                    "--innodb-flush-log-at-trx-commit=2",
                    "--innodb-doublewrite=0",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.place,
                **_account(),  # type: ignore[call-overload] # its keys are Popen's
            )
        deadline_mono = clock.mono() + START_S
        while clock.mono() < deadline_mono and process.poll() is None:
            try:
                with closing(
                    pymysql.connect(host=self.address, port=port, user="root")
                ):
                    self.port, self._process = port, process
                    return True
            except pymysql.err.OperationalError:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.05)
        if process.poll() is None:
            process.kill()
        process.wait(timeout=30)
        return False


class Database:
    """A database of one test, and two accounts: all rights there, and SELECT only."""

    def __init__(self, server: MariaDb, *, schema: str = SCHEMA) -> None:
        """Make it, with the tables of `schema`."""
        self.server = server
        self.name = f"q{secrets.token_hex(6)}"
        self.login, self.password = f"r{self.name}", secrets.token_hex(8)
        self.admin_login, self.admin_password = f"a{self.name}", secrets.token_hex(8)
        server.execute(f"CREATE DATABASE {self.name}")
        for account, password, rights in (
            (self.login, self.password, "SELECT"),
            (self.admin_login, self.admin_password, "ALL"),
        ):
            server.execute(f"CREATE USER {account}@'%%' IDENTIFIED BY %s", (password,))
            server.execute(f"GRANT {rights} ON {self.name}.* TO {account}@'%'")
        self._reader: Connection[Cursor] | None = None
        if schema:
            self.load(schema)

    @property
    def sqlserver(self) -> bytes:
        """control/sqlserver for the account that may only SELECT."""
        return self.control({"port": str(self.server.port)})

    def control(self, lines: Mapping[str, str], server: str = "127.0.0.1") -> bytes:
        """control/sqlserver with `lines` besides the account."""
        words = {
            "server": server,
            "login": self.login,
            "password": self.password,
            "db": self.name,
            **lines,
        }
        return "".join(f"{key} {value}\n" for key, value in words.items()).encode()

    def load(self, sql: str) -> None:
        """Run statements, separated by semicolons, with all rights."""
        with (
            closing(self.server.admin(self.name)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            while cursor.nextset():
                pass

    def insert(self, table: str, *rows: Sequence[Cell]) -> None:
        """Add rows, every column given, in the table's order."""
        with (
            closing(self.server.admin(self.name)) as connection,
            connection.cursor() as cursor,
        ):
            marks = ", ".join(["%s"] * len(rows[0]))
            cursor.executemany(f"INSERT INTO `{table}` VALUES ({marks})", rows)

    def query(
        self, sql: str, values: Mapping[str, bytes] | None = None
    ) -> list[tuple[Cell, ...]]:
        """The rows of a query, by the account that may only SELECT."""
        if self._reader is None:
            self._reader = self.connect()
        with self._reader.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def connect(self) -> Connection[Cursor]:
        """A connection of the account that may only SELECT; the caller closes it."""
        return pymysql.connect(
            host=self.server.address,
            port=self.server.port,
            user=self.login,
            password=self.password,
            database=self.name,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=10,
        )

    def drop(self) -> None:
        """Remove it and its accounts."""
        if self._reader is not None:
            self._reader.close()
        self.server.execute(f"DROP DATABASE {self.name}")
        self.server.execute(f"DROP USER {self.login}@'%', {self.admin_login}@'%'")


@contextmanager
def running_mariadb(pristine: Path) -> Iterator[MariaDb]:
    """A server of its own, gone at the end with all its files."""
    with _place() as place:
        server = MariaDb(place, pristine)
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def _place() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="qsend-sql-", dir="/tmp"))
    if os.getuid() == 0:
        os.chown(place, UID, UID)
    # The accounts of a tree under test connect to the socket in it.
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def pristine_data() -> Iterator[Path]:
    """An empty data directory; servers get a copy."""
    with _place() as place:
        # The script asks resolveip for names it then does not use.
        made = subprocess.run(
            [
                "/usr/bin/mariadb-install-db",
                "--no-defaults",
                f"--datadir={place}/data",
                "--auth-root-authentication-method=normal",
                "--skip-name-resolve",
                "--skip-test-db",
                "--innodb-log-file-size=8M",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=place,
            # In one /tmp, several that start at once remove each other's tables.
            env={**os.environ, "TMPDIR": str(place)},
            timeout=120,
            **_account(),  # type: ignore[call-overload] # its keys are Popen's
        )
        assert made.returncode == 0, made.stdout.decode()
        yield place / "data"


@pytest.fixture(scope="session")
def pristine_mariadb() -> Iterator[Path]:
    """The data directory that this process' servers begin with."""
    with pristine_data() as data:
        yield data


@pytest.fixture(scope="session")
def mariadb(pristine_mariadb: Path) -> Iterator[MariaDb]:
    """The server that the tests of one process share; do not disturb it."""
    with running_mariadb(pristine_mariadb) as server:
        yield server
        assert psutil.pid_exists(server.pid), "a test ended the shared server"


@pytest.fixture
def database(mariadb: MariaDb) -> Iterator[Database]:
    """A database with the tables of docs/schema.sql."""
    made = Database(mariadb)
    yield made
    made.drop()


@pytest.fixture
def own_mariadb(pristine_mariadb: Path) -> Iterator[MariaDb]:
    """A server that the test may stop, kill and pause."""
    with running_mariadb(pristine_mariadb) as server:
        yield server


@pytest.fixture
def own_database(own_mariadb: MariaDb) -> Database:
    """A database on `own_mariadb`; it goes with the server."""
    return Database(own_mariadb)
