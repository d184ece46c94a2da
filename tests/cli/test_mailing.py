"""mailsubj, predate and datemail: programs that put a header first."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from qsend.cli.predate import date_field
from tests.cli.dotline import DotLine

SHOW = '#!/bin/sh\necho "$@"\ncat\nexit 7\n'


def program(line: DotLine, name: str) -> Path:
    path = line.home / "bin" / name
    path.write_text(SHOW)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("args", "header"),
    [
        (["Hello, you", "a@b", "c d"], b"Subject: Hello, you\nTo: a@b c d\n"),
        (["x"], b"Subject: x\nTo: \n"),
        (["a\nBcc: x@y", "b\nc"], b"Subject: a Bcc: x@y\nTo: b c\n"),
        (["back\\nslash", "a"], b"Subject: back\\nslash\nTo: a\n"),
    ],
)
def test_mailsubj(line: DotLine, args: list[str], header: bytes) -> None:
    program(line, "qmail-inject")
    got = line.run("mailsubj", *args, content=b"body\n")
    assert (got.code, got.stdout) == (7, b"\n" + header + b"\nbody\n")


def test_mailsubj_without_arguments_or_inject(line: DotLine) -> None:
    got = line.run("mailsubj")
    assert got.code == 100
    assert got.stderr.startswith(b"mailsubj: usage: mailsubj subject")
    assert line.run("mailsubj", "x", "a@b").code == 111


@pytest.mark.parametrize(
    ("zone", "want"),
    [
        ("UTC0", b"Date: 5 Jan 2026 06:08:09 +0000\n"),
        ("XYZ-1", b"Date: 5 Jan 2026 07:08:09 +0100\n"),
        ("XYZ3:30", b"Date: 5 Jan 2026 02:38:09 -0330\n"),
        ("XYZ10", b"Date: 4 Jan 2026 20:08:09 -1000\n"),
        ("XYZ-5:45", b"Date: 5 Jan 2026 11:53:09 +0545\n"),
    ],
)
def test_date_field(monkeypatch: pytest.MonkeyPatch, zone: str, want: bytes) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert date_field(time.localtime(1767593289)) == want
    finally:
        monkeypatch.undo()
        time.tzset()


DATE = re.compile(rb"Date: \d\d? [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d -0200\n")


def test_predate_and_datemail(line: DotLine) -> None:
    show = program(line, "sendmail")
    for args in (["predate", str(show)], ["datemail"]):
        got = line.run(*args, "-x", "a@b", content=b"To: me\n\nbody", TZ="XYZ2")
        assert got.code == 7
        words, date, rest = got.stdout.split(b"\n", 2)
        assert (words, rest) == (b"-x a@b", b"To: me\n\nbody")
        assert DATE.fullmatch(date + b"\n")


def test_predate_failures(line: DotLine) -> None:
    got = line.run("predate")
    assert (got.code, got.stderr) == (
        100,
        b"predate: usage: predate child [ arg ... ]\n",
    )
    got = line.run("predate", "/nowhere/prog")
    assert got.code == 111
    assert b"unable to run /nowhere/prog" in got.stderr
    assert line.run("predate", "sh", "-c", "kill -9 $$").code == 111
    assert line.run("datemail").code == 111
