"""The link to a real server: answers, dropped connections, and one that is gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from qsend.core.sqlrules import Row
from qsend.core.users import Trouble
from qsend.formats.sqlserver import SqlServer, parse_sqlserver
from qsend.sysio import clock, sqllink
from qsend.sysio.loop import Loop
from qsend.sysio.sqllink import SqlLink
from tests.mariadb import Database, MariaDb

DEADLINE_S = 30.0
Answer = Sequence[Row] | Trouble


class Asked:
    """A link under its own loop, and what it said."""

    def __init__(self, servers: Sequence[SqlServer]) -> None:
        self.loop = Loop()
        self.log: list[bytes] = []
        self.states: list[bytes | None] = []
        before = set(threading.enumerate())
        self.link = SqlLink(self.loop, servers, self.log.append, self.states.append)
        [self._thread] = set(threading.enumerate()) - before

    def start(self, sql: str = "SELECT 1", **values: bytes) -> list[Answer]:
        """Ask; the answer is put into the list when it comes."""
        got: list[Answer] = []
        self.link.ask(sql, values, got.append)
        return got

    def wait(self, got: Sequence[object], count: int = 1) -> None:
        """Turn until so much has come."""
        deadline_mono = clock.mono() + DEADLINE_S
        while len(got) < count:
            assert clock.mono() < deadline_mono
            self.loop.turn(1.0)

    def ask(self, sql: str = "SELECT 1", **values: bytes) -> Answer:
        """The answer, waited for."""
        got = self.start(sql, **values)
        self.wait(got)
        return got[0]

    def close(self) -> None:
        self.link.close()
        self._thread.join(DEADLINE_S)
        self.loop.close()


@pytest.fixture
def asked(database: Database) -> Iterator[Asked]:
    made = Asked(parse_sqlserver(database.sqlserver))
    yield made
    made.close()


@pytest.fixture
def alone(own_database: Database) -> Iterator[Asked]:
    """A link to a server that the test may disturb."""
    made = Asked(parse_sqlserver(own_database.sqlserver))
    yield made
    made.close()


def is_trouble(answer: Answer, words: bytes = b"does not answer") -> bool:
    return isinstance(answer, Trouble) and words in answer.text


def test_rows_are_bytes_and_integers_and_values_stay_what_they_are(
    asked: Asked,
) -> None:
    odd = bytes(range(256)) + b"' OR 1=1 -- %s %(a)s \\"
    rows = asked.ask("SELECT 3, CAST(%(a)s AS BINARY), NULL, '1.5' + 1", a=odd)
    assert rows == ((3, odd, None, b"2.5"),)
    assert (asked.log, asked.states) == ([], [])


def test_questions_are_answered_in_order(asked: Asked) -> None:
    got: list[Answer] = []
    for number in range(200):
        asked.link.ask(f"SELECT {number}", {}, got.append)
    asked.wait(got, 200)
    assert got == [((number,),) for number in range(200)]


def test_rows_that_came_meanwhile_are_seen(asked: Asked, database: Database) -> None:
    count = "SELECT COUNT(*) FROM rcpthosts"
    assert asked.ask(count) == ((0,),)
    database.insert("rcpthosts", ("a.example",))
    assert asked.ask(count) == ((1,),)


def test_nothing_can_be_written(asked: Asked, database: Database) -> None:
    database.server.execute(f"GRANT ALL ON {database.name}.* TO {database.login}@'%'")
    answer = asked.ask("INSERT INTO rcpthosts VALUES ('a.example')")
    assert is_trouble(answer, b"READ ONLY")


def test_a_query_that_is_refused_harms_no_other(asked: Asked) -> None:
    assert is_trouble(asked.ask("SELECT x FROM nowhere"), b"refuses a query: 1146")
    assert asked.ask() == ((1,),)
    assert asked.states == []
    [line] = asked.log
    assert line.startswith(b"alert: qmail-lookup: the database refuses a query: 1146")


def test_dropped_connection_is_opened_again_unnoticed(
    asked: Asked, database: Database
) -> None:
    assert asked.ask() == ((1,),)
    for _ in range(3):
        assert database.server.drop_connections(database.login) >= 1
        assert asked.ask() == ((1,),)
    assert (asked.log, asked.states) == ([], [])


def test_wrong_password_is_trouble_that_does_not_show_it(database: Database) -> None:
    secret = database.control({"port": str(database.server.port)}).replace(
        database.password.encode(), b"hunter2"
    )
    made = Asked(parse_sqlserver(secret))
    answer = made.ask()
    assert is_trouble(answer, b"Access denied")
    assert b"hunter2" not in b"".join(made.log)
    made.close()


def test_killed_server_is_trouble_at_once_until_it_is_back(
    alone: Asked, own_mariadb: MariaDb
) -> None:
    assert alone.ask() == ((1,),)
    own_mariadb.kill()
    assert is_trouble(alone.ask())
    begun_mono = clock.mono()
    for _ in range(1000):
        [answer] = alone.start()
        assert is_trouble(answer)
    assert clock.mono() - begun_mono < 5
    own_mariadb.start()
    alone.wait(alone.states, 2)
    assert alone.ask() == ((1,),)
    [down, up] = alone.log
    assert down.startswith(b"warning: qmail-lookup: the database does not answer: ")
    assert up == b"qmail-lookup: the database answers again\n"
    assert alone.states[1] is None


def test_paused_server_keeps_nobody_waiting(
    alone: Asked, own_mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqllink, "ANSWER_S", 0.3)
    assert alone.ask() == ((1,),)
    own_mariadb.pause()
    many = [alone.start() for _ in range(50)]
    alone.wait(many[-1])
    assert all(is_trouble(answer) for [answer] in many)
    [answer] = alone.start()
    assert is_trouble(answer)
    own_mariadb.resume()
    alone.wait(alone.states, 2)
    assert alone.ask() == ((1,),)
    assert len(alone.log) == 2


def test_next_server_answers_when_the_first_is_gone(
    own_database: Database, own_mariadb: MariaDb, database: Database
) -> None:
    [first] = parse_sqlserver(own_database.sqlserver)
    [second] = parse_sqlserver(database.sqlserver)
    made = Asked([first, second])
    assert made.ask("SELECT DATABASE()") == ((own_database.name.encode(),),)
    own_mariadb.kill()
    # Whoever asks meanwhile does not even notice.
    assert made.ask("SELECT DATABASE()") == ((database.name.encode(),),)
    own_mariadb.start()
    database.server.drop_connections(database.login)
    assert made.ask("SELECT DATABASE()") == ((own_database.name.encode(),),)
    assert (made.log, made.states) == ([], [])
    made.close()


def test_paused_first_server_gives_way_to_the_second(
    own_database: Database,
    own_mariadb: MariaDb,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qsend.sysio.sqlconnection.READ_S", 1.2)
    monkeypatch.setattr("qsend.sysio.sqlconnection.CONNECT_S", 1)
    made = Asked(
        [
            *parse_sqlserver(own_database.sqlserver),
            *parse_sqlserver(database.sqlserver),
        ]
    )
    assert made.ask("SELECT DATABASE()") == ((own_database.name.encode(),),)
    own_mariadb.pause()
    assert is_trouble(made.ask())
    made.wait(made.states, 2)
    assert made.ask("SELECT DATABASE()") == ((database.name.encode(),),)
    made.close()
    own_mariadb.resume()


def test_more_questions_than_can_wait_are_trouble(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqllink, "WAITING_MAX", 3)
    got = [asked.start("SELECT SLEEP(0.2)") for _ in range(4)]
    assert is_trouble(got[3][0], b"too many questions")
    asked.wait(got[2])
    assert got[:3] == [[((0,),)]] * 3


def test_closed_link_still_answers_what_was_asked(database: Database) -> None:
    made = Asked(parse_sqlserver(database.sqlserver))
    got = made.start()
    made.close()
    made = Asked(parse_sqlserver(database.sqlserver))
    got = made.start()
    made.link.close()
    made.wait(got)
    assert got == [((1,),)]
    made.close()
