"""condredirect, bouncesaying and except: what a program's exit code decides."""

from __future__ import annotations

import re

import pytest

from tests.cli.dotline import DTLINE, MESSAGE, DotLine

CRASH = "kill -9 $$"
READS = 'test "$(head -n 1)" = "Subject: one" && '


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (READS + "exit 0", 99),
        ("exit 1", 0),
        ("exit 99", 0),
        ("exit 100", 0),
        ("exit 111", 111),
        (CRASH, 111),
    ],
)
def test_condredirect(line: DotLine, script: str, code: int) -> None:
    got = line.run("condredirect", "new@x", "sh", "-c", script)
    assert got.code == code
    if code != 99:
        assert got.envelope is None
        return
    assert re.fullmatch(rb"condredirect: qp \d+\n", got.stderr)
    # From the sender itself, unlike forward, and from the first byte.
    assert (got.sender, got.recips) == (b"s@t", [b"new@x"])
    assert got.message == DTLINE.encode() + MESSAGE


@pytest.mark.parametrize(("queue", "code"), [("31", 100), ("53", 111)])
def test_condredirect_refused_by_the_queue(
    line: DotLine, queue: str, code: int
) -> None:
    assert line.run("condredirect", "n@x", "true", QUEUE_EXIT=queue).code == code


def test_condredirect_usage_and_environment(line: DotLine) -> None:
    for args in ([], ["new@x"]):
        got = line.run("condredirect", *args)
        assert got.code == 100
        assert got.stderr.startswith(b"condredirect: usage: condredirect newaddress")
    for name in ("SENDER", "DTLINE"):
        got = line.run("condredirect", "n@x", "true", unset=(name,))
        assert (got.code, got.envelope) == (100, None)
        # Nobody asks before the program has spoken.
        assert line.run("condredirect", "n@x", "false", unset=(name,)).code == 0


def test_condredirect_needs_a_file(line: DotLine) -> None:
    got = line.run("condredirect", "n@x", "true", is_pipe=True)
    assert (got.code, got.envelope) == (111, None)
    assert got.stderr == b"condredirect: fatal: unable to rewind: Illegal seek\n"


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (READS + "exit 0", 100, b"no, thanks\n"),
        ("exit 1", 0, b""),
        ("exit 100", 0, b""),
        ("exit 111", 111, b"bouncesaying: fatal: temporary child error\n"),
        (CRASH, 111, b"bouncesaying: fatal: child crashed\n"),
    ],
)
def test_bouncesaying(line: DotLine, script: str, code: int, words: bytes) -> None:
    got = line.run("bouncesaying", "no, thanks", "sh", "-c", script)
    assert (got.code, got.stderr) == (code, words)


def test_bouncesaying_alone_always_bounces(line: DotLine) -> None:
    assert line.run("bouncesaying", "no").stderr == b"no\n"
    assert line.run("bouncesaying", "no").code == 100
    got = line.run("bouncesaying")
    assert got.code == 100
    assert got.stderr.startswith(b"bouncesaying: usage: bouncesaying error")


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (READS + "exit 0", 100, b""),
        ("exit 1", 0, b""),
        ("exit 99", 0, b""),
        ("exit 100", 0, b""),
        ("exit 111", 111, b"except: fatal: temporary child error\n"),
        (CRASH, 111, b"except: fatal: child crashed\n"),
    ],
)
def test_except(line: DotLine, script: str, code: int, words: bytes) -> None:
    got = line.run("except", "sh", "-c", script)
    assert (got.code, got.stderr) == (code, words)


def test_except_usage(line: DotLine) -> None:
    got = line.run("except")
    assert (got.code, got.stderr) == (
        100,
        b"except: usage: except program [ arg ... ]\n",
    )


@pytest.mark.parametrize("program", ["condredirect", "bouncesaying", "except"])
def test_program_that_is_not_there_says_no(line: DotLine, program: str) -> None:
    args = ["x"] if program != "except" else []
    assert line.run(program, *args, "/nowhere/prog").code == 0
    busy = line.write("busy", b"\x7fELF", 0o755)
    with busy.open("ab"):
        assert line.run(program, *args, str(busy)).code == 111
