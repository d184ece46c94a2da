"""newaliases, newinclude, setforward, setmaillist, printforward, printmaillist."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import cdblib
import pytest

from qsend.formats.forwardtable import read_records
from tests.cli.dotline import DotLine

ALIASES = """\
# see aliases(5)
postmaster: root
root: ann@x.org,
   "|cat >piped"
joe@virtual.org: joe-v
@old.org: all@new.org
list: :include:{tmp}/list
owner-list: ann@x.org
archive: {tmp}/archive
"""


def records(path: Path) -> list[tuple[bytes, bytes]]:
    return list(read_records(io.BytesIO(path.read_bytes()).read))


def aliases(line: DotLine, text: str = ALIASES) -> Path:
    return line.write("aliases", text.format(tmp=line.tmp))


def test_newaliases_makes_the_table(line: DotLine) -> None:
    path = aliases(line)
    got = line.run("newaliases", str(path))
    assert (got.code, got.stdout, got.stderr) == (0, b"", b"")
    table = line.tmp / "aliases.cdb"
    assert stat.S_IMODE(table.stat().st_mode) == 0o644
    assert not (line.tmp / "aliases.tmp").exists()
    tmp = bytes(line.tmp)
    assert records(table) == [
        (b":postmaster@", b"&root@me.example.org\0"),
        (b":root@", b"!cat >piped\0&ann@x.org\0"),
        (b":joe@virtual.org", b"&joe-v@me.example.org\0"),
        (b":@old.org", b"&all@new.org\0"),
        (b":list@", tmp + b"/list.bin\0"),
        (b"?list@", b"owner-list@me.example.org"),
        (b":owner-list@", b"&ann@x.org\0"),
        (b":archive@", b"|mboxdeliver '" + tmp + b"/archive'\0"),
    ]
    before = table.read_bytes()
    assert line.run("newaliases", "-v", ALIASES=str(path)).code == 0
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("control", "want"),
    [
        ({}, b"&joe@me.example.org\0"),
        ({"defaulthost": "h"}, b"&joe@h.me.example.org\0"),
        ({"defaulthost": "h", "defaultdomain": "d.org"}, b"&joe@h.d.org\0"),
        ({"defaulthost": "h+", "plusdomain": "p.org"}, b"&joe@h.p.org\0"),
    ],
)
def test_newaliases_completes_by_the_controls(
    line: DotLine, control: dict[str, str], want: bytes
) -> None:
    for name, value in control.items():
        line.recorder.control(name, value)
    path = aliases(line, "a: joe\n")
    assert line.run("newaliases", str(path), QMAILDEFAULTHOST="env.org").code == 0
    assert records(line.tmp / "aliases.cdb") == [(b":a@", want)]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("a: b\nc:\n", 111, b"newaliases: fatal: unable to parse line 2: c:\n"),
        ("a: " + "x" * 900, 100, b"newaliases: fatal: line 1: addresses over 800"),
    ],
)
def test_newaliases_leaves_the_old_table(
    line: DotLine, text: str, code: int, words: bytes
) -> None:
    line.write("aliases.cdb", b"old")
    got = line.run("newaliases", str(aliases(line, text)))
    assert got.code == code
    assert got.stderr.startswith(words)
    assert line.read("aliases.cdb") == b"old"
    assert not (line.tmp / "aliases.tmp").exists()


def test_newaliases_without_file(line: DotLine) -> None:
    got = line.run("newaliases", "/nowhere/aliases")
    assert (got.code, got.stderr) == (
        111,
        b"newaliases: fatal: unable to read /nowhere/aliases:"
        b" No such file or directory\n",
    )


def test_newaliases_never_writes_through_a_link(line: DotLine) -> None:
    precious = line.write("precious", b"precious")
    (line.tmp / "aliases.tmp").symlink_to(precious)
    assert line.run("newaliases", str(aliases(line))).code == 0
    assert precious.read_bytes() == b"precious"
    assert not (line.tmp / "aliases.cdb").is_symlink()


@pytest.mark.parametrize("option", ["", "-n"])
def test_aliases_work_in_fastforward(line: DotLine, option: str) -> None:
    line.write("list", "m@x.org\nn\n")
    assert line.run("newinclude", str(line.tmp / "list")).code == 0
    assert line.run("newaliases", str(aliases(line))).code == 0
    args = [each for each in ("-d", option, "aliases.cdb") if each]
    got = line.run("fastforward", *args, DEFAULT="List")
    assert got.code == 0
    if option:
        assert got.stderr.startswith(b"from <owner-list@me.example.org>\nto <")
        return
    assert got.sender == b"owner-list@me.example.org"
    assert sorted(got.recips) == [b"m@x.org", b"n@me.example.org"]
    assert line.run("fastforward", *args, DEFAULT="nobody").code == 100
    got = line.run("fastforward", *args, DEFAULT="anybody", HOST="OLD.org")
    assert got.recips == [b"all@new.org"]


def test_newinclude(line: DotLine) -> None:
    path = str(line.write("list", "a, b@c.org\n:include:more\n# x\n"))
    assert line.run("newinclude", path, QMAILDEFAULTHOST="env.org").code == 0
    assert line.read("list.bin") == b"&b@c.org\0&a@env.org\0./more.bin\0"
    assert stat.S_IMODE((line.tmp / "list.bin").stat().st_mode) == 0o644
    line.write("list", "a, |b\n")
    got = line.run("newinclude", path)
    assert (got.code, got.stderr) == (
        111,
        b"newinclude: fatal: line 1: program delivery |b not supported\n",
    )
    assert line.read("list.bin").startswith(b"&b@c")
    assert line.run("newinclude", "missing").code == 111
    got = line.run("newinclude")
    assert (got.code, got.stderr) == (100, b"newinclude: usage: newinclude list\n")


SOURCE = b"a@b: c@d, ?own@b,\n |x\\ y; # end\nE: /l.bin;\n"


def test_setforward_and_back(line: DotLine) -> None:
    got = line.run("setforward", "t.cdb", "t.tmp", content=SOURCE)
    assert (got.code, got.stderr) == (0, b"")
    want = [(b"?a@b", b"own@b"), (b":a@b", b"&c@d\0|x y\0"), (b":e", b"/l.bin\0")]
    assert records(line.tmp / "t.cdb") == want
    got = line.run("printforward", content=line.read("t.cdb"))
    assert (got.code, got.stderr) == (0, b"")
    text = b"a@b: ?own@b;\na@b:\n, &c@d\n, |x\\ y\n;\ne:\n, /l.bin\n;\n"
    assert got.stdout == text
    assert line.run("setforward", "u.cdb", "t.tmp", content=text).code == 0
    assert line.read("u.cdb") == line.read("t.cdb")
    with cdblib.Reader.from_file_path(str(line.tmp / "u.cdb")) as reader:
        assert reader.get(b"?a@b") == b"own@b"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: b", b"final instruction must end with semicolon"),
        (b"a: b: c;", b"double colons are not permitted"),
        (b"a, b: c;", b"commas are not permitted before colons"),
        (b"a\0: c;", b"NUL bytes are not permitted"),
        (b"a: " + b"x" * 801 + b";", b"addresses over 800 bytes are not permitted"),
    ],
)
def test_setforward_refuses_wrong_syntax(
    line: DotLine, content: bytes, words: bytes
) -> None:
    line.write("t.cdb", b"old")
    got = line.run("setforward", "t.cdb", "t.tmp", content=content)
    assert (got.code, got.stderr) == (100, b"setforward: fatal: " + words + b"\n")
    assert line.read("t.cdb") == b"old"
    assert not (line.tmp / "t.tmp").exists()


def test_setmaillist_and_back(line: DotLine) -> None:
    got = line.run("setmaillist", "l.bin", "l.tmp", content=b"# x\na@b \n\n/c.bin\n&d")
    assert (got.code, got.stderr) == (0, b"")
    assert line.read("l.bin") == b"&a@b\0/c.bin\0&d\0"
    assert stat.S_IMODE((line.tmp / "l.bin").stat().st_mode) == 0o644
    got = line.run("printmaillist", content=line.read("l.bin"))
    assert (got.code, got.stdout) == (0, b"&a@b\n/c.bin\n&d\n")
    got = line.run("setmaillist", "l.bin", "l.tmp", content=b"a\0b\n")
    assert (got.code, got.stderr) == (111, b"setmaillist: fatal: NUL in input\n")
    assert line.read("l.bin").startswith(b"&a@b")


def test_what_cannot_be_printed(line: DotLine) -> None:
    got = line.run("printforward", content=b"no database")
    assert (got.code, got.stderr) == (
        100,
        b"printforward: fatal: bad database format\n",
    )
    got = line.run("printmaillist", content=b"no list")
    assert (got.code, got.stderr) == (
        100,
        b"printmaillist: fatal: bad mailing list format\n",
    )


@pytest.mark.parametrize("program", ["setforward", "setmaillist"])
def test_usage_and_places_that_cannot_be_written(line: DotLine, program: str) -> None:
    for args in ([], ["x"]):
        got = line.run(program, *args)
        assert got.code == 100
        assert got.stderr.startswith(f"{program}: usage: {program} ".encode())
    got = line.run(program, "/nowhere/a", "/nowhere/b", content=b"")
    assert got.code == 111
    assert got.stderr.startswith(f"{program}: fatal: unable to write to ".encode())
