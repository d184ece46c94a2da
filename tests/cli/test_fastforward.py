from __future__ import annotations

import re

import cdblib
import pytest

from tests.cli.dotline import DTLINE, LINES, MESSAGE, DotLine
from tests.cli.recorder import Outcome

Table = dict[bytes, bytes]


def fastforward(
    line: DotLine, table: Table, *options: str, **variables: str
) -> Outcome:
    with (line.tmp / "t.cdb").open("wb") as file, cdblib.Writer(file) as writer:
        for key, value in table.items():
            writer.put(key, value)
    return line.run("fastforward", *options, "t.cdb", environ=variables)


SIMPLE = {b":joe-ext@h.org": b"&a@b\0&c@d\0"}


def test_what_is_found_is_forwarded(line: DotLine) -> None:
    got = fastforward(line, SIMPLE)
    assert got.code == 0
    assert re.fullmatch(rb"fastforward: qp \d+\n", got.stderr)
    # From the sender, not $NEWSENDER; in the order of fastforward.c.
    assert (got.sender, got.recips) == (b"s@t", [b"a@b", b"c@d"])
    assert got.message == DTLINE.encode() + MESSAGE


@pytest.mark.parametrize(
    ("options", "found", "missing"),
    [([], 0, 100), (["-p"], 99, 0), (["-pP"], 0, 100), (["-P", "-p"], 99, 0)],
)
def test_passing_on(
    line: DotLine, options: list[str], found: int, missing: int
) -> None:
    assert fastforward(line, SIMPLE, *options).code == found
    got = fastforward(line, SIMPLE, *options, RECIPIENT="other@h.org")
    assert (got.code, got.envelope) == (missing, None)
    words = b"Sorry, no mailbox here by that name. (#5.1.1)\n"
    assert got.stderr == (words if missing else b"")


@pytest.mark.parametrize(
    ("options", "variables", "code"),
    [
        (["-d"], {"DEFAULT": "dflt"}, 0),
        (["-d"], {"DEFAULT": "dflt", "EXT": "other"}, 0),
        (["-d"], {"EXT": "dflt"}, 0),
        (["-d"], {"DEFAULT": "ext"}, 100),
        (["-dD"], {"DEFAULT": "dflt"}, 100),
        (["-dD"], {"RECIPIENT": "dflt@h.org"}, 0),
    ],
)
def test_which_recipient(
    line: DotLine, options: list[str], variables: dict[str, str], code: int
) -> None:
    table = {b":dflt@h.org": b"&a@b\0"}
    assert fastforward(line, table, *options, **variables).code == code


def test_owner_programs_and_lists(line: DotLine) -> None:
    line.write("l", b"&m@x\0./k\0")
    line.write("k", b"&n@x\0&m@x\0")
    table = {
        b"?@h.org": b"owner@h.org",
        b":joe-ext@h.org": b"|cat >one; echo said\0!cat >two\0./l\0",
    }
    got = fastforward(line, table)
    assert (got.code, got.stdout) == (0, b"said\n")
    assert got.sender == b"owner@h.org"
    assert sorted(got.recips) == [b"m@x", b"n@x"]
    assert line.read("one") == MESSAGE
    assert line.read("two") == LINES + MESSAGE
    assert got.message == DTLINE.encode() + MESSAGE


def test_only_a_program(line: DotLine) -> None:
    table = {b":joe-ext@": b"|cat >one\0"}
    for options, code in (([], 0), (["-p"], 99)):
        got = fastforward(line, table, *options)
        assert (got.code, got.envelope, got.stderr) == (code, None, b"")


@pytest.mark.parametrize(
    ("exit_code", "code"),
    [
        (0, 0),
        (99, 111),
        (1, 111),
        (111, 111),
        *((code, 100) for code in (100, 64, 65, 70, 76, 77, 78, 112)),
    ],
)
@pytest.mark.parametrize("kind", ["|", "!"])
def test_exit_code_of_a_program(
    line: DotLine, kind: str, exit_code: int, code: int
) -> None:
    record = f"&a@b\0{kind}exit {exit_code}\0".encode()
    got = fastforward(line, {b":joe-ext@": record})
    assert (got.code, got.envelope is None) == (code, code != 0)


def test_program_that_crashes_is_temporary(line: DotLine) -> None:
    got = fastforward(line, {b":joe-ext@": b"|kill -9 $$\0"})
    assert (got.code, got.stderr) == (111, b"fastforward: fatal: child crashed\n")


def test_list_must_be_world_readable(line: DotLine) -> None:
    path = line.write("l", b"&m@x\0", 0o640)
    got = fastforward(line, {b":joe-ext@": b"./l\0"})
    assert (got.code, got.envelope) == (111, None)
    assert got.stderr == b"fastforward: fatal: ./l is not world-readable\n"
    path.unlink()
    got = fastforward(line, {b":joe-ext@": b"./l\0"})
    assert got.code == 111
    assert got.stderr.startswith(b"fastforward: fatal: unable to read ./l: ")


def test_n_only_says_what_would_be_done(line: DotLine) -> None:
    table = {**SIMPLE, b"?joe-ext@": b"own\x01er@h"}
    got = fastforward(line, table, "-n", "-p")
    assert (got.code, got.envelope) == (99, None)
    assert got.stderr == b"from <own_er@h>\nto <a@b>\nto <c@d>\n"
    got = fastforward(line, {b":joe-ext@": b"|touch ran\0"}, "-n")
    assert (got.code, got.stderr) == (0, b"run |touch ran\nno forwarding\n")
    assert not (line.tmp / "ran").exists()
    assert fastforward(line, SIMPLE, "-nN").envelope is not None


def test_long_record_is_read(line: DotLine) -> None:
    many = b"".join(b"&member%d@example.org\0" % n for n in range(5000))
    assert len(fastforward(line, {b":joe-ext@": many}).recips) == 5000


def test_damaged_tables_are_temporary(line: DotLine) -> None:
    got = line.run("fastforward", "missing.cdb")
    assert (got.code, got.stderr) == (
        111,
        b"fastforward: fatal: unable to read missing.cdb: No such file or directory\n",
    )
    line.write("t.cdb", b"x")
    assert line.run("fastforward", "t.cdb").code == 111
    assert fastforward(line, {b":joe-ext@": b"&a@b"}).code == 111


@pytest.mark.parametrize(
    ("options", "unset", "code"),
    [
        ([], ("RECIPIENT",), 100),
        (["-d"], ("EXT",), 100),
        (["-d"], ("HOST",), 100),
        ([], ("SENDER",), 100),
        (["-n"], ("SENDER",), 0),
    ],
)
def test_environment_that_is_needed(
    line: DotLine, options: list[str], unset: tuple[str, ...], code: int
) -> None:
    fastforward(line, {**SIMPLE, b":ext@h.org": b"&a@b\0"})
    got = line.run("fastforward", *options, "t.cdb", unset=unset)
    assert (got.code, got.envelope) == (code, None)


@pytest.mark.parametrize(("queue", "code"), [("31", 100), ("53", 111)])
def test_queue_refuses(line: DotLine, queue: str, code: int) -> None:
    assert fastforward(line, SIMPLE, QUEUE_EXIT=queue).code == code


@pytest.mark.parametrize("args", [[], ["-n"], ["-x", "t.cdb"]])
def test_fastforward_usage(line: DotLine, args: list[str]) -> None:
    got = line.run("fastforward", *args)
    assert got.code == 100
    assert got.stderr.splitlines()[-1] == (
        b"fastforward: usage: fastforward [ -nNpPdD ] data.cdb"
    )
