"""The link to a real server: answers, dropped connections, and one that is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import pytest

from qsend.core.sqlrules import Ask, Part, Row
from qsend.core.users import Trouble
from qsend.formats.sqlqueries import SqlQueries
from qsend.formats.sqlserver import SqlServer, parse_sqlserver
from qsend.sysio import clock, sqllink, threads
from qsend.sysio.loop import Loop
from qsend.sysio.sqlconnection import SqlConnection, Value
from qsend.sysio.sqllink import SqlLink
from tests.mariadb import Database, MariaDb

DEADLINE_S = 30.0
Answer = Sequence[Row] | Trouble


ECHO = "SELECT :host AS host"
DB = "SELECT DATABASE() AS host, :host AS x"
ONE: Answer = [(0, b"1")]


def about(*values: bytes) -> Ask:
    """A question with a part for each value."""
    return Ask(parts=tuple(Part(query="rcpthost", values={"host": v}) for v in values))


@cache
def queries(text: str) -> SqlQueries:
    """`text` for each part. The same object for the same text, as in life."""
    return SqlQueries(texts=(("rcpthost", text),))


def telling(ended: threading.Event) -> Callable[[Callable[[], None]], None]:
    """threads.start, for a target whose end is told."""
    first_start = threads.start

    def start(target: Callable[[], None]) -> None:
        def run() -> None:
            try:
                target()
            finally:
                ended.set()

        first_start(run)

    return start


class Asked:
    """A link under its own loop, and what it said."""

    def __init__(self, servers: Sequence[SqlServer]) -> None:
        self.loop = Loop()
        self.log: list[bytes] = []
        self.states: list[bytes | None] = []
        self._ended = threading.Event()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threads, "start", telling(self._ended))
            self.link = SqlLink(self.loop, servers, self.log.append, self.states.append)

    def start(self, query: str = ECHO, value: bytes = b"1") -> list[Answer]:
        """Ask one part; the answer is put into the list when it comes."""
        got: list[Answer] = []
        self.link.ask(about(value), queries(query), got.append)
        return got

    def wait(self, got: Sequence[object], count: int = 1) -> None:
        """Turn until so much has come."""
        deadline_mono = clock.mono() + DEADLINE_S
        while len(got) < count:
            assert clock.mono() < deadline_mono
            self.loop.turn(1.0)

    def ask(self, query: str = ECHO, value: bytes = b"1") -> Answer:
        """The answer, waited for."""
        got = self.start(query, value)
        self.wait(got)
        return got[0]

    def close(self) -> None:
        self.link.close()
        assert self._ended.wait(DEADLINE_S)
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


def test_questions_are_answered_in_order_each_by_its_own_rows(asked: Asked) -> None:
    got: list[tuple[int, Answer]] = []
    for number in range(300):
        # Of several lengths, some with the same value: nobody gets another's rows.
        values = [b"%d" % (number % 7 + at) for at in range(number % 5 + 1)]
        asked.link.ask(
            about(*values),
            queries(ECHO),
            lambda rows, number=number: got.append((number, rows)),  # type: ignore[misc]
        )
    asked.wait(got, 300)
    for number, rows in got:
        want = [(at, b"%d" % (number % 7 + at)) for at in range(number % 5 + 1)]
        assert rows == want, number
    assert [number for number, _ in got] == list(range(300))


def test_questions_in_line_share_round_trips(
    own_database: Database, own_mariadb: MariaDb
) -> None:
    made = Asked(parse_sqlserver(own_database.sqlserver))
    assert made.ask() == ONE
    before = selects(own_mariadb)
    got = [made.start("SELECT SLEEP(0.3) AS x, :host AS host")]
    got += [made.start() for _ in range(500)]
    made.wait(got[-1])
    assert all(answer == [ONE] for answer in got)
    assert selects(own_mariadb) - before <= 500 // sqllink.PARTS_MAX + 3
    made.close()


def selects(server: MariaDb) -> int:
    [(_, count)] = server.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
    return int(str(count))


def test_other_queries_are_not_mixed_in(asked: Asked, database: Database) -> None:
    slow = asked.start("SELECT SLEEP(0.2) AS x, :host AS host")
    got = [asked.start(query) for query in (ECHO, DB, ECHO, DB)]
    asked.wait(got[-1])
    name: Answer = [(0, database.name.encode())]
    assert [slow, *got] == [[ONE], [ONE], [name], [ONE], [name]]


def test_a_query_that_is_refused_harms_no_other(asked: Asked) -> None:
    slow = asked.start("SELECT SLEEP(0.2) AS x, :host AS host")
    # By its rows, so that only one of those that share a statement is at fault.
    picky = "SELECT IF(:host = '7', (SELECT 1 UNION SELECT 2), :host) AS host"
    got = [asked.start(picky, b"%d" % number) for number in range(10)]
    asked.wait(got[-1])
    for number, [answer] in enumerate(got):
        if number == 7:
            assert is_trouble(answer, b"refuses a query: 1242"), answer
        else:
            assert answer == [(0, b"%d" % number)]
    assert slow == [ONE]
    assert asked.states == []
    [line] = asked.log
    assert line.startswith(b"alert: qmail-lookup: the database refuses a query: 1242")


def test_dropped_connection_is_opened_again_unnoticed(
    asked: Asked, database: Database
) -> None:
    assert asked.ask() == ONE
    for _ in range(3):
        assert database.server.drop_connections(database.login) >= 1
        assert asked.ask() == ONE
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
    assert alone.ask() == ONE
    own_mariadb.kill()
    assert is_trouble(alone.ask())
    begun_mono = clock.mono()
    for _ in range(1000):
        [answer] = alone.start()
        assert is_trouble(answer)
    assert clock.mono() - begun_mono < 5
    own_mariadb.start()
    alone.wait(alone.states, 2)
    assert alone.ask() == ONE
    [down, up] = alone.log
    assert down.startswith(b"warning: qmail-lookup: the database does not answer: ")
    assert up == b"qmail-lookup: the database answers again\n"
    assert alone.states[1] is None


def test_paused_server_keeps_nobody_waiting(
    alone: Asked, own_mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert alone.ask() == ONE
    own_mariadb.pause()
    with monkeypatch.context() as patch:
        patch.setattr(sqllink, "ANSWER_S", 0.3)
        many = [alone.start() for _ in range(50)]
        alone.wait(many[-1])
    assert all(is_trouble(answer) for [answer] in many)
    [answer] = alone.start()
    assert is_trouble(answer)
    own_mariadb.resume()
    alone.wait(alone.states, 2)
    assert alone.ask() == ONE
    assert len(alone.log) == 2


def test_next_server_answers_when_the_first_is_gone(
    own_database: Database, own_mariadb: MariaDb, database: Database
) -> None:
    [first] = parse_sqlserver(own_database.sqlserver)
    [second] = parse_sqlserver(database.sqlserver)
    made = Asked([first, second])
    assert made.ask(DB) == [(0, own_database.name.encode())]
    own_mariadb.kill()
    # Whoever asks meanwhile does not even notice.
    assert made.ask(DB) == [(0, database.name.encode())]
    own_mariadb.start()
    database.server.drop_connections(database.login)
    assert made.ask(DB) == [(0, own_database.name.encode())]
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
    assert made.ask(DB) == [(0, own_database.name.encode())]
    own_mariadb.pause()
    assert is_trouble(made.ask())
    made.wait(made.states, 2)
    assert made.ask(DB) == [(0, database.name.encode())]
    made.close()
    own_mariadb.resume()


def test_more_questions_than_can_wait_are_trouble(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqllink, "WAITING_MAX", 3)
    slow = "SELECT SLEEP(0.2) AS x, :host AS host"
    got = [asked.start(slow) for _ in range(4)]
    assert is_trouble(got[3][0], b"too many questions")
    asked.wait(got[2])
    assert got[:3] == [[ONE]] * 3


def test_closed_link_still_answers_what_was_asked(database: Database) -> None:
    made = Asked(parse_sqlserver(database.sqlserver))
    got = made.start()
    made.close()
    made = Asked(parse_sqlserver(database.sqlserver))
    got = made.start()
    made.link.close()
    made.wait(got)
    assert got == [ONE]
    made.close()


def test_question_of_many_parts_takes_several_statements(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms: list[int] = []
    run = SqlConnection.run

    def counted(
        self: SqlConnection, sql: str, values: Mapping[str, Value]
    ) -> Sequence[Row]:
        arms.append(sql.count("UNION ALL") + 1)
        return run(self, sql, values)

    monkeypatch.setattr(SqlConnection, "run", counted)
    values = [b"%d" % number for number in range(501)]
    got: list[Answer] = []
    asked.link.ask(about(*values), queries(ECHO), got.append)
    other = asked.start(value=b"x")
    asked.wait(got)
    assert got == [list(enumerate(values))]
    asked.wait(other)
    assert other == [[(0, b"x")]]
    assert max(arms) == sqllink.PARTS_MAX


def test_without_a_thread_there_is_trouble_until_there_is_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_target: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    loop, states = Loop(), list[bytes | None]()
    servers = parse_sqlserver(database.sqlserver)
    ended = threading.Event()
    monkeypatch.setattr(threads, "start", telling(ended))
    with monkeypatch.context() as patch:
        patch.setattr(threads, "start", no_thread)
        link = SqlLink(loop, servers, lambda _line: None, states.append)
        loop.turn(0)
    got: list[Answer] = []
    link.ask(about(b"1"), queries(ECHO), got.append)
    assert is_trouble(got.pop(), b"no thread is to be had")
    deadline_mono = clock.mono() + DEADLINE_S
    while len(states) < 2:
        assert clock.mono() < deadline_mono
        loop.turn(1.0)
    assert states[1] is None
    link.ask(about(b"1"), queries(ECHO), got.append)
    while not got:
        assert clock.mono() < deadline_mono
        loop.turn(1.0)
    assert got == [ONE]
    link.close()
    assert ended.wait(DEADLINE_S)
    loop.close()
