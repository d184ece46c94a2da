"""control/sqlqueries, and the one text that an Ask becomes."""

from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.core.sqlrules import COLUMNS, PLACEHOLDERS, Ask, Part
from qsend.formats.sqlqueries import DEFAULTS, QUERY_MAX, parse_sqlqueries

HOST = Ask(parts=(Part(query="rcpthost", values={"host": b"v.example"}),))


def text(line: str) -> str:
    """The statement that a rcpthost query becomes."""
    statement, values = parse_sqlqueries(line.encode()).statement(HOST)
    assert values == {"host_0": b"v.example"}
    return statement


def fault(content: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_sqlqueries(content)
    (one,) = caught.value.faults
    return str(one)


def test_every_query_has_a_valid_default() -> None:
    assert DEFAULTS.keys() == COLUMNS.keys() == PLACEHOLDERS.keys()
    lines = "".join(f"{name}={query}\n" for name, query in DEFAULTS.items())
    assert parse_sqlqueries(lines.encode()) == parse_sqlqueries(None)
    assert parse_sqlqueries(b"") == parse_sqlqueries(None)


def test_statement_of_one_part() -> None:
    assert text("") == (
        "SELECT 0, CAST(q.host AS BINARY) FROM"
        " (SELECT host FROM rcpthosts WHERE host = %(host_0)s) AS q"
    )


def test_statement_of_several_parts_is_one_union_of_equal_width() -> None:
    parts = (*HOST.parts, Part(query="alias", values={"username": b"u", "alias": b"a"}))
    statement, values = parse_sqlqueries(None).statement(Ask(parts=parts))
    assert values == {"host_0": b"v.example", "username_1": b"u", "alias_1": b"a"}
    first, second = statement.split(" UNION ALL ")
    assert first.startswith("SELECT 0, CAST(q.host AS BINARY), NULL, NULL FROM (")
    assert second.startswith("SELECT 1, CAST(q.alias AS BINARY), CAST(q.alias_username")


def test_replaced_query_with_blanks_and_comment_lines() -> None:
    content = "# mine\n\n rcpthost = SELECT h AS host FROM t WHERE h=:host \n"
    assert "(SELECT h AS host FROM t WHERE h=%(host_0)s) AS q" in text(content)


def test_percent_signs_are_doubled_inside_and_outside_of_quotes() -> None:
    got = text("rcpthost=SELECT 5 % 2 AS host FROM t WHERE h LIKE '%x' AND h = :host")
    assert "SELECT 5 %% 2 AS host FROM t WHERE h LIKE '%%x' AND h = %(host_0)s" in got
    assert "LIKE '%x'" in got % {"host_0": "1"}


@pytest.mark.parametrize(
    "quoted", ["':no'", '":no"', "`:no`", "'it''s :no'", r"'\':no'", "'; -- # /*'"]
)
def test_quoted_text_has_no_placeholders(quoted: str) -> None:
    got = text(f"rcpthost=SELECT {quoted} AS host FROM t WHERE h = :host")
    assert quoted in got


def test_placeholder_may_stand_twice() -> None:
    got = text("rcpthost=SELECT :host AS host FROM t WHERE h = :host")
    assert got.count("%(host_0)s") == 2


def test_assignment_is_no_placeholder() -> None:
    assert "@a:=1" in text("rcpthost=SELECT @a:=1 AS host FROM t WHERE h = :host")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nothing", "expected name=query"),
        ("hosts=SELECT 1", "expected one of mailbox, virtual, pattern"),
        ("rcpthost=", "rcpthost is no SELECT"),
        ("rcpthost=DELETE FROM t WHERE h = :host", "rcpthost is no SELECT"),
        ("rcpthost=SELECTED :host", "rcpthost is no SELECT"),
        ("rcpthost=SELECT 1", "rcpthost: :host missing"),
        ("virtual=SELECT 1", "virtual: :host, :user missing"),
        ("rcpthost=SELECT ':host'", "rcpthost: :host missing"),
        ("rcpthost=SELECT :host, :user", "rcpthost has no value :user"),
        ("rcpthost=SELECT :host; SELECT 1", "rcpthost: ; is not allowed"),
        ("rcpthost=SELECT :host -- x", "rcpthost: -- is not allowed"),
        ("rcpthost=SELECT :host # x", "rcpthost: # is not allowed"),
        ("rcpthost=SELECT :host /* x", "rcpthost: /* is not allowed"),
        ("rcpthost=SELECT :host 'x", "rcpthost: a ' is not closed"),
        ("rcpthost=SELECT :host `x", "rcpthost: a ` is not closed"),
        ('rcpthost=SELECT :host "x', 'rcpthost: a " is not closed'),
        ("rcpthost=SELECT :host " + "x" * QUERY_MAX, "rcpthost is longer than"),
        ("rcpthost=SELECT :host \0", "rcpthost is no SELECT"),
    ],
)
def test_fault_has_its_line(line: str, problem: str) -> None:
    assert fault(f"# one\n{line}\n".encode()).startswith(
        f"control/sqlqueries:2: {problem}"
    )


def test_bytes_that_are_no_text_are_a_fault() -> None:
    assert fault(b"rcpthost=SELECT :host, '\xff'") == "control/sqlqueries:1: not UTF-8"


def test_query_twice_is_a_fault() -> None:
    line = "rcpthost=SELECT :host\n"
    assert fault((line * 2).encode()) == "control/sqlqueries:2: rcpthost again"


def test_unpaired_bytes_become_the_replacement_character() -> None:
    part = Part(query="rcpthost", values={"host": b"a\xffb\xc3\xa4"})
    _, values = parse_sqlqueries(None).statement(Ask(parts=(part,)))
    assert values == {"host_0": "a\ufffdb\u00e4".encode()}


def test_values_never_reach_the_text() -> None:
    part = Part(query="rcpthost", values={"host": b"') OR 1=1 -- "})
    statement, _ = parse_sqlqueries(None).statement(Ask(parts=(part,)))
    assert "OR 1=1" not in statement
