"""qmail-pw2u: users/assign from a password file, with all options and files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.programs import Done, run_program

ALIAS = b"alias:x:70:80:Alias:%b/alias:/bin/false\n"
ALIAS_LINES = (
    b"+:alias:70:80:%b/alias:-::\n"
    b"=alias:alias:70:80:%b/alias:::\n"
    b"+alias-:alias:70:80:%b/alias:-::\n"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "users").mkdir()
    return tmp_path


def pw2u(home: Path, passwd: bytes, *args: str, with_alias: bool = True) -> Done:
    alias = ALIAS % bytes(home) if with_alias else b""
    return run_program("qmail_pw2u", *args, home=home, stdin=alias + passwd)


def lines(home: Path, passwd: bytes, *args: str) -> bytes:
    """What comes between the lines of alias and the dot."""
    done = pw2u(home, passwd, *args)
    assert (done.returncode, done.stderr) == (0, b"")
    head = ALIAS_LINES.replace(b"%b", bytes(home))
    assert done.stdout.startswith(head)
    assert done.stdout.endswith(b".\n")
    return done.stdout.removeprefix(head)[:-2]


def account(name: bytes, uid: int = 500, home: bytes = b"/h") -> bytes:
    return b"%b:*:%d:78:A Name:%b:/bin/sh\n" % (name, uid, home)


JOE = b"=joe:joe:500:78:/h:::\n+joe-:joe:500:78:/h:-::\n"


@pytest.mark.parametrize(
    ("passwd", "want"),
    [
        (account(b"joe"), JOE),
        (account(b"joe")[:-1], JOE),
        (account(b"zero", 0), b""),
        (account(b"Joe"), b""),
        (b"joe:*:500:78:no shell field:/h\n", b""),
        (b"joe:*::78::/h:/bin/sh\njoe:*:x:78::/h:/bin/sh\n", b""),
        (b"joe\0:*:500:78::/h:/bin/sh\n", b""),
        (b"\n+::::::\n# nothing\n", b""),
        (account(b"joe") + b"+@netgroup::::::\n", JOE),
    ],
)
def test_passwd_lines_without_looking_at_homes(
    home: Path, passwd: bytes, want: bytes
) -> None:
    assert lines(home, passwd, "-H") == want


@pytest.mark.parametrize(
    ("args", "want"),
    [
        (("-u",), b"=Joe:Joe:500:78:/h:::\n+Joe-:Joe:500:78:/h:-::\n"),
        (("-uU",), b""),
        (("-u", "-c", "+"), b"=Joe:Joe:500:78:/h:::\n+Joe+:Joe:500:78:/h:-::\n"),
        (("-uc.x",), b"=Joe:Joe:500:78:/h:::\n+Joe.:Joe:500:78:/h:-::\n"),
        (("-uC",), b"=Joe:Joe:500:78:/h:::\n"),
        (("-u", "-c", ""), b"=Joe:Joe:500:78:/h:::\n"),
        (("-u/",), b"=Joe:Joe:500:78:/h:::\n+Joe-:Joe:500:78:/h:-/::\n"),
    ],
)
def test_options(home: Path, args: tuple[str, ...], want: bytes) -> None:
    done = pw2u(home, account(b"Joe"), "-H", *args)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"".join(done.stdout.splitlines(True)[-3:]).endswith(want + b".\n")
    assert (b":Joe:" in done.stdout) == bool(want)


def test_homes_that_are_missing_or_of_others(home: Path) -> None:
    me = os.getuid()
    (home / "mine").mkdir()
    there = bytes(home / "mine")
    passwd = [
        b"joe:*:%d:78::%b:/bin/sh\n" % (me or 7, there),
        account(b"gone", home=bytes(home / "gone")),
        account(b"other", me + 1, there),
    ]
    if me == 0:
        os.chown(home / "mine", 7, 7)
    (home / "alias").mkdir()
    os.chown(home / "alias", 70 if me == 0 else me, -1)
    alias = (ALIAS % bytes(home)).replace(b":70:", b":%d:" % (70 if me == 0 else me))
    for option in ((), ("-o",)):
        done = run_program(
            "qmail_pw2u", *option, home=home, stdin=alias + b"".join(passwd)
        )
        assert done.returncode == 0, done.stderr
        assert b"\n=joe:" in done.stdout
        assert b"=gone" not in done.stdout
        assert b"=other" not in done.stdout
    done = run_program("qmail_pw2u", "-h", home=home, stdin=alias + b"".join(passwd))
    assert (done.returncode, done.stdout) == (111, b"")
    assert b"unable to stat" in done.stderr
    done = run_program("qmail_pw2u", "-h", home=home, stdin=alias + passwd[2])
    assert done.returncode == 0
    assert b"=other" not in done.stdout


FOUR = b"".join(account(name) for name in (b"ann", b"bob", b"joe", b"zoe"))


def names(output: bytes) -> list[bytes]:
    return [line[1:].split(b":")[0] for line in output.splitlines() if line[:1] == b"="]


@pytest.mark.parametrize(
    ("include", "exclude", "want"),
    [
        (None, None, [b"alias", b"ann", b"bob", b"joe", b"zoe"]),
        (b"alias\n#ann\nBOB \n\njoe\t\n", None, [b"alias", b"bob", b"joe"]),
        (None, b"bob\nZOE", [b"alias", b"ann", b"joe"]),
        (b"alias\nann\nbob\n", b"ann\n", [b"alias", b"bob"]),
    ],
)
def test_include_and_exclude(
    home: Path, include: bytes | None, exclude: bytes | None, want: list[bytes]
) -> None:
    for name, content in (("include", include), ("exclude", exclude)):
        if content is not None:
            (home / "users" / name).write_bytes(content)
    assert names(pw2u(home, FOUR, "-H").stdout) == want


def test_mailnames_take_the_place_of_the_name(home: Path) -> None:
    (home / "users/mailnames").write_bytes(b"JOE:joe:Joseph.Doe\nann::x:\nbob:\n#c\n")
    assert lines(home, account(b"joe") + account(b"ann") + account(b"bob"), "-H") == (
        JOE
        + b"=Joseph.Doe:joe:500:78:/h:::\n+Joseph.Doe-:joe:500:78:/h:-::\n"
        + b"=x:ann:500:78:/h:::\n+x-:ann:500:78:/h:-::\n"
    )


def test_subusers_and_append_come_last(home: Path) -> None:
    (home / "users/subusers").write_bytes(b"web:joe:www:\n\nbad:joe\nl:Joe::x\n")
    (home / "users/append").write_bytes(b"=extra:e:1:2:/e:::")
    got = lines(home, account(b"joe"), "-H")
    assert got == JOE + (
        b"=web:joe:500:78:/h:-:www:\n+web-:joe:500:78:/h:-:www-:\n"
        b"=l:joe:500:78:/h:-::\n+l-:joe:500:78:/h:-:-:\n"
        b"=extra:e:1:2:/e:::\n"
    )
    slashed = pw2u(home, account(b"joe"), "-H/C").stdout
    assert b"\n=web:joe:500:78:/h:-/:www:\n=l:" in slashed


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("subusers", b"web:nobody:www:\n", b"unable to find nobody user for subuser"),
        ("include", b"joe\n", b"unable to find alias user"),
        ("mailnames", None, b"unable to read"),
    ],
)
def test_what_cannot_be_done_prints_nothing(
    home: Path, file: str, content: bytes | None, words: bytes
) -> None:
    path = home / "users" / file
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    done = pw2u(home, account(b"joe"), "-H")
    assert (done.returncode, done.stdout) == (111, b"")
    assert done.stderr.startswith(b"qmail-pw2u: fatal: ")
    assert words in done.stderr


def test_no_alias_account_and_no_place_to_write(home: Path) -> None:
    done = pw2u(home, account(b"joe"), "-H", with_alias=False)
    assert (done.returncode, done.stdout) == (111, b"")
    done = run_program(
        "qmail_pw2u", "-H", home=home, stdin=ALIAS % b"",
        before="import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
    )  # fmt: skip
    assert done.returncode == 111
    assert b"unable to write output" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("args", [("-x",), ("-c",)])
def test_wrong_usage(home: Path, args: tuple[str, ...]) -> None:
    done = pw2u(home, b"", *args)
    assert (done.returncode, done.stdout) == (100, b"")
