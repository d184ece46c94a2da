from __future__ import annotations

import mailbox
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.dotline import DotLine

DAY = 86400


class Boxes:
    """A maildir, and the variables that say where things are."""

    def __init__(self, line: DotLine) -> None:
        self.line = line
        self.maildir = line.tmp / "Maildir"
        for name in ("tmp", "new", "cur"):
            (self.maildir / name).mkdir(parents=True)
        self.mbox = line.tmp / "mbox"
        self.variables = {
            "MAILDIR": str(self.maildir),
            "MAIL": str(self.mbox),
            "MAILTMP": str(line.tmp / "mbox.tmp"),
        }

    def add(self, name: str, content: bytes, mtime: int) -> Path:
        path = self.maildir / name
        path.write_bytes(content)
        os.utime(path, (mtime, mtime))
        return path

    def run(self, **variables: str) -> tuple[int, bytes]:
        got = self.line.run("maildir2mbox", environ={**self.variables, **variables})
        return got.code, got.stderr


@pytest.fixture
def boxes(line: DotLine) -> Boxes:
    return Boxes(line)


def test_messages_are_moved_oldest_first(boxes: Boxes) -> None:
    boxes.mbox.write_bytes(b"From old\n\nold\n\n")
    boxes.add("new/1", b"Return-Path: <>\nA: 2\n\nFrom x\nend", 2 * DAY)
    boxes.add("cur/2:2,S", b'Return-Path: <"a b"@c>\nA: 1\n\n>From y\n', DAY)
    boxes.add("new/3", b"A: 3\n\n", 3 * DAY)
    boxes.add("new/.hidden", b"x", DAY)
    assert boxes.run() == (0, b"")
    assert boxes.mbox.read_bytes() == (
        b"From old\n\nold\n\n"
        b'From "a-b"@c Fri Jan 02 00:00:00 1970\nReturn-Path: <"a b"@c>\n'
        b"A: 1\n\n>>From y\n\n"
        b"From MAILER-DAEMON Sat Jan 03 00:00:00 1970\nReturn-Path: <>\n"
        b"A: 2\n\n>From x\nend\n\n"
        b"From XXX Sun Jan 04 00:00:00 1970\nA: 3\n\n\n"
    )
    left = [path.name for path in boxes.maildir.rglob("*") if path.is_file()]
    assert left == [".hidden"]
    assert not Path(boxes.variables["MAILTMP"]).exists()
    assert boxes.run() == (0, b"")
    with closing(mailbox.mbox(boxes.mbox, create=False)) as box:
        assert len(box) == 4


def test_empty_maildir_leaves_the_mbox_alone(boxes: Boxes) -> None:
    assert boxes.run() == (0, b"")
    assert not boxes.mbox.exists()
    future = boxes.add("new/1", b"later", 2**31)
    assert boxes.run() == (0, b"")
    assert future.exists()


def test_new_mbox_is_for_its_owner_alone(boxes: Boxes) -> None:
    boxes.add("new/1", b"x\n", DAY)
    assert boxes.run() == (0, b"")
    assert boxes.mbox.stat().st_mode & 0o777 == 0o600


def test_old_files_in_tmp_are_removed(boxes: Boxes) -> None:
    old = boxes.add("tmp/old", b"x", DAY)
    young = boxes.maildir / "tmp/young"
    young.write_bytes(b"x")
    assert boxes.run() == (0, b"")
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("name", ["MAIL", "MAILTMP", "MAILDIR"])
def test_missing_variable(boxes: Boxes, name: str) -> None:
    del boxes.variables[name]
    words = b"maildir2mbox: fatal: %b not set\n" % name.encode()
    assert boxes.run() == (111, words)


@pytest.mark.parametrize("name", ["MAIL", "MAILTMP", "MAILDIR"])
def test_nothing_is_lost_when_a_place_is_wrong(boxes: Boxes, name: str) -> None:
    message = boxes.add("new/1", b"x\n", DAY)
    boxes.mbox.write_bytes(b"old")
    code, words = boxes.run(**{name: "/nowhere/x"})
    assert code == 111
    assert words.startswith(b"maildir2mbox: fatal: unable to ")
    assert message.read_bytes() == b"x\n"
    assert boxes.mbox.read_bytes() == b"old"


HOLD = """
import fcntl, os, sys
path = sys.argv[1]
file = open(path, "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.readline()
new = open(path + ".n", "wb")
new.write(b"replaced\\n")
new.close()
os.rename(path + ".n", path)
"""


def test_mbox_replaced_while_its_lock_was_waited_for(boxes: Boxes) -> None:
    boxes.mbox.write_bytes(b"old\n")
    boxes.add("new/1", b"x\n", DAY)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(boxes.mbox)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"locked\n"
        holder.stdin.write(b"go\n")
        holder.stdin.flush()
        assert boxes.run() == (0, b"")
    # Whichever was first: what the other wrote is not lost with the old file.
    assert boxes.mbox.read_bytes().startswith(b"replaced\nFrom XXX ")
