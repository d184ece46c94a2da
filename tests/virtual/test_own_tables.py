"""Tables and queries of an operator's own, and what a look-up costs the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from pymysql.cursors import Cursor

from qsend.core.lookups import Stored
from qsend.core.model import Account
from qsend.core.sqllocality import ask_locality
from qsend.core.sqllogin import MailboxLogin, ask_login, ask_rcpthost
from qsend.core.sqlrules import Ask, SqlOptions
from qsend.core.sqluser import ask_user
from qsend.formats.sqlqueries import parse_sqlqueries
from tests.mariadb import Database, MariaDb
from tests.sqlworld import OPTIONS, SqlTables, World, trouble_of, user_of

REORDERED = """
CREATE TABLE mailbox (
  note TEXT, suspended ENUM('N', 'Y') NOT NULL DEFAULT 'N', home VARCHAR(200),
  password_type ENUM('Password', 'Crypt-Password', 'MySQL-Password'),
  gid VARCHAR(10), uid BIGINT, password BLOB, username VARCHAR(32) PRIMARY KEY,
  created TIMESTAMP DEFAULT CURRENT_TIMESTAMP
) CHARSET={charset};
CREATE TABLE `virtual` (
  virtual_host VARCHAR(64), id INT AUTO_INCREMENT PRIMARY KEY,
  virtual_username VARCHAR(64), username VARCHAR(32), ext VARCHAR(64),
  INDEX (virtual_host)
) CHARSET={charset};
CREATE TABLE alias (
  alias_host VARCHAR(200), alias VARCHAR(32), username VARCHAR(32),
  alias_username VARCHAR(32), comment VARCHAR(20) DEFAULT 'x', INDEX (username)
) CHARSET={charset};
CREATE TABLE rcpthosts (owner INT DEFAULT 7, host VARCHAR(64), INDEX (host))
  CHARSET={charset};
INSERT INTO mailbox (username, uid, gid, home, password, password_type)
  VALUES ('dmp', 800, '100', '/mail/dmp', 'flibble', 'Password');
INSERT INTO `virtual` (username, ext, virtual_username, virtual_host)
  VALUES ('dmp', NULL, 'diane.p', 'tterson.net'), ('iain', '@', NULL, 'null.cx'),
         ('iain', '@', '', 'iain.cx');
INSERT INTO alias (username, alias, alias_username, alias_host)
  VALUES ('dmp', 'x', 'ann', NULL), ('dmp', '', '.', '/Maildir/');
INSERT INTO rcpthosts (host) VALUES ('iain.cx');
"""
"""As the example tables, with columns added, reordered and of other types, and NULL
where the examples have blanks."""


@pytest.mark.parametrize(
    "charset", ["latin1", "utf8mb4", "utf8mb4 COLLATE utf8mb4_bin"]
)
def test_extra_and_reordered_columns_do_not_matter(
    mariadb: MariaDb, charset: str
) -> None:
    database = Database(mariadb, schema=REORDERED.format(charset=charset))
    world = World(tables=SqlTables(database))
    world.owners[b"/mail/dmp"] = Account(uid=800, gid=100)
    user = user_of(world.user("dmp-x"))
    assert (user.uid, user.gid, user.instructions) == (800, 100, b"&ann\n")
    assert user_of(world.user("dmp-other")).instructions == b"./Maildir/\n"
    login = world.login("dmp").answer
    assert isinstance(login, MailboxLogin)
    assert (login.password, login.suspended) == (b"flibble", False)
    want = Stored(address=b"dmp@tterson.net")
    assert world.locality("diane.p@tterson.net").answer == want
    want = Stored(address=b"iain-x@iain.cx")
    assert world.locality("x@iain.cx").answer == want
    assert world.rcpthost("iain.cx").answer is True
    assert user_of(world.user("d\xfcmp")).name == b"alias"
    database.drop()


def test_loose_collation_finds_no_other_names(mariadb: MariaDb) -> None:
    database = Database(mariadb, schema=REORDERED.format(charset="utf8mb4"))
    world = World(tables=SqlTables(database))
    world.owners[b"/mail/dmp"] = Account(uid=800, gid=100)
    for name in ("dmp ", "d\u00efmp"):
        local = name.encode().decode("latin-1")
        assert user_of(world.user(local)).name == b"alias"
    database.drop()


@pytest.mark.parametrize(
    ("column", "value"),
    [("uid", "NULL"), ("uid", "-1"), ("uid", "4294967295"), ("gid", "'wheel'")],
)
def test_uid_or_gid_that_is_none_defers(
    mariadb: MariaDb, column: str, value: str
) -> None:
    database = Database(mariadb, schema=REORDERED.format(charset="utf8mb4"))
    database.load(f"UPDATE mailbox SET {column} = {value}")
    text = trouble_of(World(tables=SqlTables(database)).user("dmp"))
    assert text.startswith(f"MySQL misconfiguration: mailbox row 'dmp': {column} is ")
    database.drop()


def test_queries_can_be_replaced(mariadb: MariaDb) -> None:
    schema = """
CREATE TABLE people (login VARCHAR(99) PRIMARY KEY, number INT, dir VARCHAR(99));
INSERT INTO people VALUES ('100%joe', 800, '/p/joe');
CREATE TABLE alias (username INT, alias INT, alias_username INT, alias_host INT)
"""
    queries = parse_sqlqueries(
        b"mailbox = SELECT login AS username, number AS uid, 100 AS gid, dir AS home"
        b" FROM people WHERE login = CONCAT('100%', :username) OR login = :username\n"
    )
    database = Database(mariadb, schema=schema)
    world = World(tables=SqlTables(database, queries))
    world.owners[b"/p/joe"] = Account(uid=800, gid=100)
    assert user_of(world.user("100%joe")).home == b"/p/joe"
    assert user_of(world.user("joe")).name == b"alias", "rows must give what was asked"
    database.drop()


MANY = 20_000
ROWS = f"""
INSERT INTO mailbox (username, uid, gid, home)
  SELECT CONCAT('user', seq), 800, 100, CONCAT('/mail/user', seq)
  FROM seq_1_to_{MANY};
INSERT INTO `virtual`
  SELECT CONCAT('user', seq), '', CONCAT('name', seq), 'big.example'
  FROM seq_1_to_{MANY};
INSERT INTO `virtual`
  SELECT CONCAT('user', seq), '@', '', CONCAT('host', seq, '.example')
  FROM seq_1_to_{MANY};
INSERT INTO `virtual`
  SELECT 'forward', CONCAT('name', seq, '@far.example'), CONCAT('fwd', seq), 'f.example'
  FROM seq_1_to_{MANY};
INSERT INTO alias (username, alias, alias_username, alias_host)
  SELECT 'user7', CONCAT('list', seq), 'member', 'far.example' FROM seq_1_to_{MANY};
INSERT INTO alias (username, alias, alias_username, alias_host)
  SELECT CONCAT('user', seq), '', '.', '/Maildir/' FROM seq_1_to_{MANY};
INSERT INTO rcpthosts SELECT CONCAT('host', seq, '.example') FROM seq_1_to_{MANY};
ANALYZE TABLE mailbox, `virtual`, alias, rcpthosts;
"""
MAGIC = SqlOptions(
    envnoathost=b"big.example",
    locals=frozenset({b"me.example"}),
    magicforwarding=True,
)


@pytest.fixture(scope="module")
def many_rows(mariadb: MariaDb) -> Iterator[Database]:
    """20,000 rows of each kind."""
    database = Database(mariadb)
    database.load(ROWS)
    yield database
    database.drop()


ASKS = {
    "user": (ask_user(b"user777", OPTIONS), 2),
    "user and extension": (ask_user(b"user7-list19", OPTIONS), 3),
    "nobody": (ask_user(b"no-such-user", OPTIONS), 0),
    "forward": (ask_user(b"forward-name9@far.example", MAGIC), 1),
    "virtual": (ask_locality(b"name777@big.example", OPTIONS), 2),
    "virtual catch-all": (ask_locality(b"x@host777.example", OPTIONS), 2),
    "virtual without match": (ask_locality(b"x@big.example", OPTIONS), 1),
    "unknown host": (ask_locality(b"x@far.example", OPTIONS), 0),
    "local and replaced": (ask_locality(b"name777@me.example", MAGIC), 1),
    "rcpthost": (ask_rcpthost(b"host777.example"), 1),
    "login": (ask_login(b"user777"), 1),
}
"""Questions, and how many rows answer each."""


@pytest.mark.parametrize("what", ASKS)
def test_each_query_of_a_look_up_is_one_index_probe(
    many_rows: Database, what: str
) -> None:
    ask, answers = ASKS[what]
    sql, values = parse_sqlqueries(None).statement(ask)
    assert len(many_rows.query(sql, values)) == answers
    plan = many_rows.query(f"EXPLAIN {sql}", values)
    for _, _, table, access, _, key, _, _, rows, extra in plan:
        if table is None:
            # The server probed a unique index while it planned, and found nothing.
            assert "after reading const tables" in str(extra), plan
        elif str(table)[:1] != "<":
            assert access in ("const", "eq_ref", "ref", "range"), plan
            assert key in ("PRIMARY", "by_user", "by_target"), plan
            # It is the whole host's number where LIMIT 1 ends it after one row.
            assert int(str(rows)) <= 3 or "LIMIT 1" in sql, plan
    assert rows_read(many_rows, ask) <= 4 * len(ask.parts)


def rows_read(database: Database, ask: Ask) -> int:
    """Index entries and rows that the server looked at, by its own count."""
    sql, values = parse_sqlqueries(None).statement(ask)
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        before = handler_reads(cursor)
        cursor.execute(sql, values)
        cursor.fetchall()
        return handler_reads(cursor) - before


def handler_reads(cursor: Cursor) -> int:
    """The counters of index reads; reading them reads a temporary table's rows."""
    cursor.execute(
        "SHOW SESSION STATUS WHERE Variable_name IN ('Handler_read_first',"
        " 'Handler_read_key', 'Handler_read_next', 'Handler_read_prev')"
    )
    return sum(int(value) for _, value in cursor.fetchall())
