"""docs/VIRTUAL.md: its examples give what it says, its tables are those of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from qsend.core.model import Account, Channel, User
from qsend.core.sqllocality import Unlisted
from qsend.core.sqlrules import COLUMNS, PLACEHOLDERS
from qsend.core.users import Trouble
from qsend.formats.control import Controls
from qsend.formats.sqlcontrols import NUMBERS, SQL_FILES, parse_sql
from qsend.formats.sqlqueries import parse_sqlqueries
from qsend.formats.sqlserver import parse_sqlserver
from tests.mariadb import Database
from tests.sqlworld import SqlTables, World

DOC = (Path(__file__).parents[2] / "docs/VIRTUAL.md").read_text()
FENCED = re.compile(r"(?:^<!-- (.*) -->\n)?^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)
ROW = re.compile(r"^\| (.*) \|$", re.M)


@dataclass(frozen=True, kw_only=True)
class Example:
    """SQL to load, the controls it supposes, and the tables that follow it."""

    title: str
    controls: str
    sql: str
    tables: Sequence[Sequence[Sequence[str]]]


def examples() -> Iterator[Example]:
    for section in re.split(r"^## ", DOC, flags=re.M)[1:]:
        blocks = [block for block in FENCED.finditer(section) if block[2] == "sql"]
        starts = [block.start() for block in blocks]
        for block, end in zip(blocks, [*starts[1:], len(section)], strict=False):
            yield Example(
                title=section.split("\n")[0],
                controls=block[1] or "",
                sql=block[3],
                tables=list(tables_in(section[block.end() : end])),
            )


def tables_in(text: str) -> Iterator[list[list[str]]]:
    """The cells of each Markdown table, its head first."""
    for lines in re.findall(r"(?:^\|.*\|\n)+", text + "\n", flags=re.M):
        rows = [
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)]
            for line in lines.splitlines()
        ]
        yield [row[1:-1] for row in rows if set("".join(row)) != {"-"}]


def table_headed(head: str) -> list[list[str]]:
    (found,) = [table for table in tables_in(DOC) if table[0] == head.split(", ")]
    return found[1:]


def world_of(example: Example, database: Database) -> World:
    database.load(example.sql)
    world = World(tables=SqlTables(database))
    for home, uid, gid in database.query("SELECT home, uid, gid FROM mailbox"):
        assert isinstance(uid, int)
        assert isinstance(gid, int)
        world.owners[str(home).encode()] = Account(uid=uid, gid=gid)
    for control in filter(None, example.controls.split("; ")):
        name, _, value = control.partition(" ")
        match name:
            case "locals":
                world.control(locals=frozenset({value.encode()}))
            case "envnoathost":
                world.control(envnoathost=value.encode())
            case "account":
                world.passwd[value.encode()] = Account(uid=1001, gid=1001)
            case "magicforwarding":
                world.control(magicforwarding=True)
            case _:
                assert name == "sqlpatterns"
                world.control(patterns=True)
    return world


def place(world: World, address: str) -> str:
    """In the words of the page."""
    match world.route(address):
        case Trouble(text=text):
            return f"waits: {text.decode()}"
        case Unlisted():
            return "fails (#5.1.1)"
        case (Channel.REMOTE, stored):
            return f"remote {stored.decode()}"
        case (_, stored):
            return stored.decode()


def user(world: World, local: str) -> tuple[str, str]:
    answer = world.user(local).answer
    if not isinstance(answer, User):
        return f"waits: {answer.text.decode()}", ""
    home = "" if answer.name == b"alias" else f", {answer.home.decode()}"
    lines = (answer.instructions or b"").decode().split("\n")
    return answer.name.decode() + home, " ".join(lines).strip()


@pytest.mark.parametrize("example", list(examples()), ids=lambda each: each.title)
def test_example_gives_what_the_page_says(
    example: Example, tables: SqlTables, shared_database: Database
) -> None:
    world = world_of(example, shared_database)
    assert example.tables
    for head, *rows in example.tables:
        for row in rows:
            if head == ["mail for", "is stored as"]:
                assert (row[0], place(world, row[0])) == tuple(row)
            else:
                assert head == ["local part", "user", "instructions"]
                assert (row[0], *user(world, row[0])) == tuple(row)


def test_every_control_is_told_with_its_default() -> None:
    rows = {
        name: default for name, default, _ in table_headed("file, default, meaning")
    }
    assert rows.keys() == SQL_FILES
    assert {name: int(rows[name]) for name in NUMBERS} == {
        name: default for name, (default, _) in NUMBERS.items()
    }


def test_every_query_is_told_with_its_placeholders_and_columns() -> None:
    rows = table_headed("name, placeholders, columns")
    assert {name: tuple(words.split(", ")) for name, words, _ in rows} == PLACEHOLDERS
    told = {name: tuple(words.split(";")[0].split(", ")) for name, _, words in rows}
    assert told["pattern"][0] == "the same"
    assert {**told, "pattern": told["virtual"]} == COLUMNS


def test_control_files_of_the_page_can_be_read() -> None:
    blocks = [block[3] for block in FENCED.finditer(DOC) if not block[2]]
    (content,) = [text for text in blocks if text.lstrip().startswith("server")]
    (server,) = parse_sqlserver(content.encode())
    assert (server.host, server.login, server.db) == ("localhost", "qmail", "qmail")
    (query,) = [text for text in blocks if text.startswith("rcpthost=")]
    assert "active = 1" in dict(parse_sqlqueries(query.encode()).texts)["rcpthost"]
    assert parse_sql({"sqlserver": content.encode()}, Controls()) is not None
