"""qmail-getpw: whose a local part is, by a password file of the test's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.programs import Done, run_program

# Python that makes qsend.sysio.passwd read a file in place of the system's.
ACCOUNTS = """
import os
from qsend.core.model import Account
from qsend.sysio import passwd
def by_name(name):
    for line in open(os.environ['PASSWD'], 'rb'):
        entry = line.split(b':')
        if entry[0] == name:
            if entry[2] == b'trouble':
                raise OSError(5, 'Input/output error')
            account = Account(uid=int(entry[2]), gid=int(entry[3]))
            return passwd.PasswdEntry(name=name, account=account, home=entry[5])
    return None
passwd.by_name = by_name
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Accounts joe, joe-web and long names that own their homes; zero and other not."""
    mine = os.getuid() or 67001
    (tmp_path / "own").mkdir()
    os.chown(tmp_path / "own", mine, -1)
    (tmp_path / "root").mkdir()
    rows = [
        (b"joe", mine, tmp_path / "own"),
        (b"joe-web", mine, tmp_path / "own"),
        (b"n" * 60, mine, tmp_path / "own"),
        (b"zero", 0, tmp_path / "root"),
        (b"other", mine + 1, tmp_path / "own"),
        (b"homeless", mine, tmp_path / "gone"),
        (b"alias", 67002, Path("/var/qmail/alias")),
    ]
    text = b"".join(
        b"%b:x:%d:80::%b:/bin/sh\n" % (name, uid, bytes(at)) for name, uid, at in rows
    )
    (tmp_path / "passwd").write_bytes(text + b"sick:x:trouble:80::/h:/bin/sh\n")
    return tmp_path


def getpw(home: Path, *args: str | bytes) -> Done:
    env = {"PASSWD": str(home / "passwd")}
    return run_program("qmail_getpw", *args, env=env, before=ACCOUNTS)


@pytest.mark.parametrize(
    ("local", "name", "dash", "ext"),
    [
        (b"joe", b"joe", b"", b""),
        (b"JOE", b"joe", b"", b""),
        (b"Joe-Lists-x", b"joe", b"-", b"Lists-x"),
        (b"joe-Web", b"joe-web", b"", b""),
        (b"joe-web-x", b"joe-web", b"-", b"x"),
        (b"joe-", b"joe", b"-", b""),
        (b"n" * 60, b"n" * 60, b"", b""),
        (b"\xff-x", b"alias", b"-", b"\xff-x"),
        (b"Bill", b"alias", b"-", b"Bill"),
        (b"zero", b"alias", b"-", b"zero"),
        (b"other-x", b"alias", b"-", b"other-x"),
        (b"homeless", b"alias", b"-", b"homeless"),
        (b"-joe", b"alias", b"-", b"-joe"),
        (b"", b"alias", b"-", b""),
    ],
)
def test_fields_of_the_account(
    home: Path, local: bytes, name: bytes, dash: bytes, ext: bytes
) -> None:
    done = getpw(home, local)
    assert (done.returncode, done.stderr) == (0, b"")
    *fields, last = done.stdout.split(b"\0")
    assert last == b""
    assert (fields[0], fields[4], fields[5]) == (name, dash, ext)
    [row] = [
        line.split(b":")
        for line in (home / "passwd").read_bytes().splitlines()
        if line.startswith(name + b":")
    ]
    assert fields[1:4] == [row[2], row[3], row[5]]


def test_codes_for_what_is_missing_or_unknown(home: Path) -> None:
    assert getpw(home).returncode == 100
    assert getpw(home, b"sick").returncode == 118
    assert getpw(home, b"x-sick").returncode == 0
    passwd = (home / "passwd").read_bytes()
    (home / "passwd").write_bytes(passwd.replace(b"alias:x", b"other:x"))
    done = getpw(home, b"bill")
    assert (done.returncode, done.stdout) == (116, b"")


def test_home_on_a_server_that_is_away_is_115(home: Path) -> None:
    trouble = ACCOUNTS + (
        "def is_user(entry): raise OSError(5, 'Input/output error')\n"
        "passwd.is_user = is_user\n"
    )
    env = {"PASSWD": str(home / "passwd")}
    done = run_program("qmail_getpw", b"joe-x", env=env, before=trouble)
    assert (done.returncode, done.stdout) == (115, b"")
