"""qmail-newu and qmail-newmrh: databases from text, all or nothing."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import cdblib
import pytest

from qsend.core.errors import PermFail
from qsend.core.model import User
from qsend.sysio.cdbmaker import fill
from qsend.sysio.userdb import UsersCdb
from tests.programs import ROOT, run_program

ASSIGN = b"""\
=joe:joe:503:78:/home/joe:::
+joe-:joe:503:78:/home/joe:-::
+:alias:7790:2108:/var/qmail/alias:-::
.
"""
SHA256 = "a64fe9c4540613a28518ca814953874e20cad9908cae81b7e51e8a2ca78ccb13"
"""Of the database that the format's description gives for ASSIGN."""


@pytest.fixture
def users(tmp_path: Path) -> Path:
    (tmp_path / "users").mkdir()
    (tmp_path / "control").mkdir()
    return tmp_path / "users"


def found(users: Path, local: bytes) -> User | None:
    database = UsersCdb(str(users / "cdb"))
    assert database.refresh()
    user = database.find(local)
    database.close()
    return user


def test_worked_example_is_identical_byte_by_byte(users: Path) -> None:
    (users / "assign").write_bytes(ASSIGN)
    done = run_program("qmail_newu", home=users.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    content = (users / "cdb").read_bytes()
    assert len(content) == 2236
    assert hashlib.sha256(content).hexdigest() == SHA256
    assert sorted(os.listdir(users)) == ["assign", "cdb"]
    assert (users / "cdb").stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize(
    ("local", "name", "dash", "ext"),
    [
        (b"joe", b"joe", b"", b""),
        (b"Joe-Lists", b"joe", b"-", b"Lists"),
        (b"bill", b"alias", b"-", b"bill"),
        (b"two", b"first", b"", b""),
        (b"a.b.c", b"dot", b"-", b"c"),
    ],
)
def test_lookup_finds_what_the_lines_say(
    users: Path, local: bytes, name: bytes, dash: bytes, ext: bytes
) -> None:
    more = (
        b"=two:first:1:1:/:::\n=two:second:1:1:/:::\n"
        b"+a.:short:1:1:/:-::\n+a.b.:dot:1:1:/:-::\n"
    )
    (users / "assign").write_bytes(more + ASSIGN)
    assert run_program("qmail_newu", home=users.parent).returncode == 0
    user = found(users, local)
    assert user is not None
    assert (user.name, user.dash, user.ext) == (name, dash, ext)


def test_many_users_are_all_found(users: Path) -> None:
    lines = [b"=user%d:u%d:%d:78:/h:::\n" % (n, n, n + 1) for n in range(3000)]
    (users / "assign").write_bytes(b"".join(lines) + b".\n")
    assert run_program("qmail_newu", home=users.parent).returncode == 0
    for number in (0, 1, 1500, 2999):
        user = found(users, b"user%d" % number)
        assert user is not None
        assert user.uid == number + 1


@pytest.mark.parametrize(
    "assign",
    [
        None,
        b"",
        b"=joe:joe:503:78:/home/joe:::\n",
        b"=joe:joe:503\n.\n",
        b"=a\0:::::::\n.",
    ],
)
def test_error_leaves_the_old_database(users: Path, assign: bytes | None) -> None:
    (users / "cdb").write_bytes(b"old")
    if assign is not None:
        (users / "assign").write_bytes(assign)
    done = run_program("qmail_newu", home=users.parent)
    assert done.returncode == 111
    assert done.stderr.startswith(b"qmail-newu: fatal: ")
    assert done.stderr.count(b"\n") == 1
    assert b"users/assign" in done.stderr
    assert (users / "cdb").read_bytes() == b"old"
    assert "cdb.tmp" not in os.listdir(users)


def test_no_home_or_no_room_for_the_new_file_is_111(users: Path) -> None:
    assert run_program("qmail_newu").returncode == 111
    (users / "assign").write_bytes(ASSIGN)
    (users / "cdb.tmp").mkdir()
    done = run_program("qmail_newu", home=users.parent)
    assert done.returncode == 111
    assert b"cdb.tmp" in done.stderr


def test_old_temporary_file_is_never_written_to(users: Path) -> None:
    (users / "assign").write_bytes(ASSIGN)
    (users / "precious").write_bytes(b"precious")
    (users / "cdb.tmp").hardlink_to(users / "precious")
    assert run_program("qmail_newu", home=users.parent).returncode == 0
    assert (users / "precious").read_bytes() == b"precious"


def test_runs_at_the_same_time_take_turns(users: Path) -> None:
    (users / "assign").write_bytes(ASSIGN)
    code = "from qsend.cli.qmail_newu import main; raise SystemExit(main([]))"
    env = {"PYTHONPATH": str(ROOT), "QSEND_HOME": str(users.parent)}
    runs = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(4)]
    assert [each.wait(60) for each in runs] == [0] * 4
    assert hashlib.sha256((users / "cdb").read_bytes()).hexdigest() == SHA256


class _Far(io.BytesIO):
    """A file whose end is beyond 4 GiB."""

    def tell(self) -> int:
        return 2**32 + super().tell()


def test_database_beyond_4_gib_is_refused() -> None:
    with pytest.raises(PermFail, match="4 GiB"):
        fill(_Far(), [(b"key", b"value")])


MORE = b"""\
# comment
Example.ORG \t
.sub.example

  indented.example
"""


def test_newmrh_takes_each_line_in_lower_case(users: Path) -> None:
    control = users.parent / "control"
    (control / "morercpthosts").write_bytes(MORE + b"last.example")
    done = run_program("qmail_newmrh", home=users.parent)
    assert (done.returncode, done.stderr) == (0, b"")
    reader = cdblib.Reader((control / "morercpthosts.cdb").read_bytes())
    assert dict(reader.items()) == dict.fromkeys(
        (b"example.org", b".sub.example", b"  indented.example", b"last.example"), b""
    )
    assert sorted(os.listdir(control)) == ["morercpthosts", "morercpthosts.cdb"]


@pytest.mark.parametrize("content", [None, b"x" * 70000])
def test_newmrh_error_leaves_the_old_database(
    users: Path, content: bytes | None
) -> None:
    control = users.parent / "control"
    (control / "morercpthosts.cdb").write_bytes(b"old")
    if content is not None:
        (control / "morercpthosts").write_bytes(content)
    done = run_program("qmail_newmrh", home=users.parent)
    assert (done.returncode, done.stderr.count(b"\n")) == (111, 1)
    assert done.stderr.startswith(b"qmail-newmrh: fatal: ")
    assert (control / "morercpthosts.cdb").read_bytes() == b"old"
    assert not (control / "morercpthosts.tmp").exists()
