from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cli.dotline import DTLINE, LINES, MESSAGE, DotLine
from tests.cli.recorder import Outcome


@pytest.fixture
def forward(line: DotLine) -> DotLine:
    line.recorder.control("defaultdomain", "dom.org")
    line.recorder.control("plusdomain", "plus.org")
    line.recorder.control("defaulthost", "host")
    return line


def obey(line: DotLine, text: str, *options: str, **variables: str) -> Outcome:
    line.write(".forward", text)
    return line.run("dot-forward", *options, ".forward", environ=variables)


@pytest.mark.parametrize(
    ("text", "recips"),
    [
        ("a@b.c", [b"a@b.c"]),
        (
            "a@b.c, d\ne@f, g@h+",
            [b"d@host.dom.org", b"a@b.c", b"g@h.plus.org", b"e@f.dom.org"],
        ),
        ("# x\n Ann (boss) <a@b.c>\n\n", [b"a@b.c"]),
        ('"a b"@c.d', [b"a b@c.d"]),
        ("joe@other.org", [b"joe@other.org"]),
        ("|x@y.z", [b"|x@y.z"]),
    ],
)  # fmt: skip
def test_addresses_are_forwarded(
    forward: DotLine, text: str, recips: list[bytes]
) -> None:
    got = obey(forward, text)
    assert got.code == 99
    assert re.fullmatch(rb"dot-forward: qp \d+\n", got.stderr)
    assert (got.sender, got.recips) == (b"new@t", recips)
    assert got.message == DTLINE.encode() + MESSAGE


@pytest.mark.parametrize(
    "text", ["joe", "\\joe", "JOE", "joe@h.org", "Joe@H.Org", "Me <joe>", '"joe"']
)
def test_the_recipient_himself_means_the_next_line(forward: DotLine, text: str) -> None:
    got = obey(forward, text)
    assert (got.code, got.envelope, got.stderr) == (0, None, b"")
    got = obey(forward, f"{text}, x@y.z")
    assert (got.code, got.recips) == (0, [b"x@y.z"])


@pytest.mark.parametrize("text", ["", "\n", "# comment only\n", "(nobody)", "<>, \n"])
def test_a_file_that_says_nothing_is_passed_over(forward: DotLine, text: str) -> None:
    assert obey(forward, text).code == 0
    forward.write("second", "x@y.z")
    got = forward.run("dot-forward", "missing", ".forward", "second", "third")
    assert (got.code, got.recips) == (99, [b"x@y.z"])


def test_only_the_first_file_counts(forward: DotLine) -> None:
    forward.write("second", "x@y.z")
    got = forward.run("dot-forward", "second", ".forward")
    assert got.recips == [b"x@y.z"]
    obey(forward, "a@b.c")
    got = forward.run("dot-forward", ".forward", "second")
    assert got.recips == [b"a@b.c"]


def test_without_files_the_next_line_has_its_turn(forward: DotLine) -> None:
    for args in ([], ["missing"], ["a", "b", "/nowhere/c"]):
        got = forward.run("dot-forward", *args)
        assert (got.code, got.stdout, got.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    "text",
    [
        '"|cat >piped"',
        '|"cat >piped"',
        '\t"|cat > piped"  (what for)\n',
        "\"|IFS=' ' && exec cat >piped || exit 75 #joe\"",
    ],
)
def test_programs_get_the_message_as_from_preline(forward: DotLine, text: str) -> None:
    got = obey(forward, text)
    assert (got.code, got.envelope, got.stderr) == (99, None, b"")
    assert forward.read("piped") == LINES + MESSAGE


def test_program_address_and_recipient_all_count(forward: DotLine) -> None:
    got = obey(forward, 'joe, "|cat >one", x@y.z, "|cat >two; echo hello"\n')
    assert (got.code, got.stdout) == (0, b"hello\n")
    assert got.message == DTLINE.encode() + MESSAGE
    assert forward.read("one") == forward.read("two") == LINES + MESSAGE


@pytest.mark.parametrize(
    ("code", "want"),
    [
        (0, 99),
        (99, 111),
        (1, 111),
        (75, 111),
        (111, 111),
        (127, 111),
        *((code, 100) for code in (100, 64, 65, 70, 76, 77, 78, 112)),
    ],
)
def test_exit_code_of_a_program(forward: DotLine, code: int, want: int) -> None:
    got = obey(forward, f'x@y.z\n"|exit {code}"')
    assert got.code == want
    # The address waits until the programs have all said yes.
    assert (got.envelope is None) is (code != 0)


def test_program_that_crashes_is_temporary(forward: DotLine) -> None:
    got = obey(forward, '"|kill -9 $$"')
    assert (got.code, got.stderr) == (111, b"dot-forward: fatal: child crashed\n")


def test_files_are_mboxes_of_the_user(forward: DotLine) -> None:
    box = forward.tmp / "box"
    for _ in range(2):
        assert obey(forward, f"{box}, x@y.z").code == 99
    entry = LINES + MESSAGE.replace(b"\nFrom", b"\n>From") + b"\n\n"
    assert box.read_bytes() == 2 * entry
    assert box.stat().st_mode & 0o777 == 0o600
    assert obey(forward, f'"{forward.tmp}/a b"').code == 99
    assert forward.read("a b") == entry


def test_dev_null_swallows_the_message(forward: DotLine) -> None:
    got = obey(forward, "/dev/null\n")
    assert (got.code, got.envelope) == (99, None)


def test_what_is_no_file_of_the_user_is_refused(forward: DotLine) -> None:
    for path in ("/dev/zero", "/nowhere/box", str(forward.tmp)):
        got = obey(forward, f"{path}, x@y.z")
        assert (got.code, got.envelope) == (111, None)
        assert os.fsencode(path) in got.stderr


@pytest.mark.root
def test_a_file_of_another_user_is_refused(forward: DotLine) -> None:
    box = forward.write("box", b"theirs", 0o666)
    os.chown(box, 64900, -1)
    assert obey(forward, str(box)).code == 111
    assert box.read_bytes() == b"theirs"


def test_included_files_say_the_same_things(forward: DotLine) -> None:
    forward.write("list", 'a@b.c, :include:more\njoe\n"|cat >piped"\n')
    forward.write("more", f"# more\nd@e.f\n{forward.tmp}/box\n")
    got = obey(forward, f"x@y.z, :include:{forward.tmp}/list")
    assert (got.code, got.recips) == (0, [b"d@e.f", b"a@b.c", b"x@y.z"])
    assert forward.read("piped") == LINES + MESSAGE
    assert forward.read("box").startswith(LINES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (":include:missing", b"unable to open missing: No such file or directory"),
        (":include:", b"empty :include: filenames not permitted"),
        (":include:.forward", b".forward is included too deeply"),
        (":include:/", b"unable to read /: Is a directory"),
        ("(", b"unable to parse this line: ("),
        ('ok@x.y\n"a\n', b'unable to parse this line: "a'),
        ("a>", b"unable to parse this line: a>"),
    ],
)
def test_trouble_is_temporary(forward: DotLine, text: str, words: bytes) -> None:
    got = obey(forward, text)
    assert (got.code, got.envelope) == (111, None)
    assert got.stderr == b"dot-forward: fatal: " + words + b"\n"


def test_programs_of_a_file_that_others_write_are_not_run(forward: DotLine) -> None:
    forward.write("open", '"|touch ran"\n', 0o646)
    got = obey(forward, ":include:open")
    assert got.code == 111
    assert b"open names a program or file, but others may write to it" in got.stderr
    forward.write("open", f"{forward.tmp}/ran\n", 0o646)
    assert obey(forward, ":include:open").code == 111
    assert not (forward.tmp / "ran").exists()
    forward.write("open", "a@b.c\n", 0o646)
    assert obey(forward, ":include:open").recips == [b"a@b.c"]


def unreadable(line: DotLine) -> Path:
    (line.tmp / "loop").symlink_to("loop")
    return line.tmp / "loop"


def test_a_file_that_cannot_be_opened_is_not_missing(forward: DotLine) -> None:
    got = forward.run("dot-forward", str(unreadable(forward)))
    assert got.code == 111
    assert b"fatal: unable to open" in got.stderr
    (forward.tmp / "dangling").symlink_to("nowhere")
    assert forward.run("dot-forward", "dangling").code == 0


@pytest.mark.parametrize(("queue", "code"), [("31", 100), ("53", 111)])
def test_queue_refuses(forward: DotLine, queue: str, code: int) -> None:
    got = obey(forward, "a@b.c", QUEUE_EXIT=queue)
    assert got.code == code
    assert got.stderr.startswith(b"dot-forward: fatal: unable to forward message: ")


@pytest.mark.parametrize(
    ("text", "words", "code"),
    [
        ("a@b.c, d", b"forward d@host.dom.org\nforward a@b.c\n", 99),
        ('joe\n"|touch ran"', b"pipe through touch ran\ndirect delivery\n", 0),
        ("/tmp/ran", b"append to /tmp/ran\n", 99),
        ("#", b"skipping empty file .forward\ndirect delivery\n", 0),
    ],
)
def test_n_only_says_what_would_be_done(
    forward: DotLine, text: str, words: bytes, code: int
) -> None:
    got = obey(forward, text, "-n")
    assert (got.code, got.stderr, got.envelope) == (code, words, None)
    assert not (forward.tmp / "ran").exists()
    assert obey(forward, "a@b.c", "-nN").envelope is not None
    got = forward.run("dot-forward", "-n", "missing")
    assert (got.code, got.stderr) == (0, b"direct delivery\n")


def test_dot_forward_usage(forward: DotLine) -> None:
    got = forward.run("dot-forward", "-x", ".forward")
    assert got.code == 100
    assert got.stderr.splitlines()[-1].startswith(b"dot-forward: usage: dot-forward [")
