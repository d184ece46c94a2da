from __future__ import annotations

import os

import pytest

from tests.cli.dotline import LINES, MESSAGE, DotLine

ENTRY = LINES + MESSAGE.replace(b"\nFrom", b"\n>From") + b"\n\n"


def test_message_is_appended(line: DotLine) -> None:
    for count in (1, 2):
        got = line.run("mboxdeliver", "a box")
        assert (got.code, got.stdout, got.stderr) == (0, b"", b"")
        assert line.read("a box") == count * ENTRY


@pytest.mark.root
def test_box_of_another_user_is_left_alone(line: DotLine) -> None:
    path = line.write("box", b"theirs", 0o666)
    os.chown(path, 64900, -1)
    got = line.run("mboxdeliver", "box")
    assert got.code == 111
    assert got.stderr.startswith(b"mboxdeliver: fatal: box is not a file of the ")
    assert path.read_bytes() == b"theirs"


@pytest.mark.parametrize("path", ["/dev/null", "/nowhere/box", "."])
def test_what_is_no_mailbox_is_refused(line: DotLine, path: str) -> None:
    assert line.run("mboxdeliver", path).code == 111


def test_mboxdeliver_usage_and_environment(line: DotLine) -> None:
    for args in ([], ["a", "b"]):
        got = line.run("mboxdeliver", *args)
        assert (got.code, got.stderr) == (
            100,
            b"mboxdeliver: usage: mboxdeliver file\n",
        )
    assert line.run("mboxdeliver", "box", unset=("UFLINE",)).code == 100
    assert line.run("mboxdeliver", "box", is_pipe=True).code == 111
    assert not (line.tmp / "box").exists() or line.read("box") == b""
