"""Whose mail a local part is, on a machine with real accounts and a real cdb."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cdblib
import pytest

from qsend.core.model import Account, Accounts, Ownership, User
from qsend.core.users import NoUser, Trouble
from qsend.sysio import passwd
from qsend.sysio.userdb import UserDb

ALIAS = Account(uid=7790, gid=2108)


def accounts() -> Accounts:
    made = {
        field.name: Account(uid=7700 + at, gid=2108)
        for at, field in enumerate(fields(Accounts))
    }
    return replace(Accounts(**made), alias=ALIAS, root=Account(uid=0, gid=2107))


def write_cdb(home: Path, records: Mapping[bytes, bytes]) -> None:
    """As qmail-newu does: beside, then renamed."""
    (home / "users").mkdir(exist_ok=True)
    beside = home / "users/cdb.tmp"
    with beside.open("wb") as file, cdblib.Writer(file) as writer:
        for key, value in records.items():
            writer.put(key, value)
    beside.rename(home / "users/cdb")


def assigned(**names: bytes) -> dict[bytes, bytes]:
    """Exact records for names, all with one plausible user."""
    value = b"%b\x00503\x0078\0/home/joe\0\0"
    records = {b"!%b\0" % name.encode(): value % user for name, user in names.items()}
    return {**records, b"": b""}


@contextmanager
def database(
    home: Path, made: Accounts | None = None, *, single_user: bool = False
) -> Iterator[UserDb]:
    (home / "alias").mkdir(exist_ok=True)
    db = UserDb(str(home), made or accounts(), single_user=single_user)
    yield db
    db.close()


def found(db: UserDb, local: bytes) -> User:
    outcome = db.find(local)
    assert isinstance(outcome, User), outcome
    return outcome


def trouble(db: UserDb, local: bytes) -> bytes:
    outcome = db.find(local)
    assert isinstance(outcome, Trouble), outcome
    return outcome.text


def test_worked_example_of_the_format(tmp_path: Path) -> None:
    write_cdb(
        tmp_path,
        {
            b"!joe\0": b"joe\x00503\x0078\0/home/joe\0\0",
            b"!joe-": b"joe\x00503\x0078\0/home/joe\0-\0",
            b"!": b"alias\x007790\x002108\0/var/qmail/alias\0-\0",
            b"": b"-",
        },
    )
    joe = User(
        name=b"joe",
        uid=503,
        gid=78,
        home=b"/home/joe",
        dash=b"",
        ext=b"",
        ownership=Ownership.TRUSTED,
    )
    alias = replace(joe, name=b"alias", uid=7790, gid=2108, home=b"/var/qmail/alias")
    with database(tmp_path) as db:
        assert db.find(b"joe") == joe
        assert db.find(b"JOE") == joe
        assert db.find(b"Joe-Lists") == replace(joe, dash=b"-", ext=b"Lists")
        assert db.find(b"joe-") == replace(joe, dash=b"-")
        assert db.find(b"bill") == replace(alias, dash=b"-", ext=b"bill")
        assert db.find(b"joey") == replace(alias, dash=b"-", ext=b"joey")


def test_longest_wildcard_wins_and_upper_case_wildcards_match(tmp_path: Path) -> None:
    record = b"%b\x00503\x0078\0/h\0-\0"
    write_cdb(
        tmp_path,
        {
            b"!a-": record % b"short",
            b"!a-b-": record % b"long",
            b"!postx": record % b"upper",
            b"": b"-X",
        },
    )
    with database(tmp_path) as db:
        assert (found(db, b"a-b-c").name, found(db, b"a-b-c").ext) == (b"long", b"c")
        assert (found(db, b"A-B").name, found(db, b"A-B").ext) == (b"short", b"B")
        assert (found(db, b"PostXyz").name, found(db, b"PostXyz").ext) == (
            b"upper",
            b"yz",
        )


def test_cdb_without_a_match_goes_on_to_the_accounts(tmp_path: Path) -> None:
    write_cdb(tmp_path, assigned(joe=b"joe"))
    with database(tmp_path) as db:
        assert found(db, b"nobody-at-all").home == os.fsencode(tmp_path / "alias")


def test_refresh_notices_a_new_cdb_and_its_removal(tmp_path: Path) -> None:
    with database(tmp_path) as db:
        assert db.refresh() is False
        assert found(db, b"zoe").name == b"alias"
        write_cdb(tmp_path, assigned(zoe=b"one"))
        assert db.refresh() is True
        assert db.refresh() is False
        assert found(db, b"zoe").name == b"one"
        write_cdb(tmp_path, assigned(zoe=b"two"))
        assert found(db, b"zoe").name == b"two"
        (tmp_path / "users/cdb").unlink()
        assert db.refresh() is True
        assert found(db, b"zoe").name == b"alias"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", b"2048"),
        (b"garbage", b"2048"),
        (bytes(2048), b"empty key"),
        (b"\xff" * 4096, b"users/cdb"),
    ],
)
def test_damaged_cdb_is_trouble_and_heals(
    tmp_path: Path, content: bytes, word: bytes
) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users/cdb").write_bytes(content)
    with database(tmp_path) as db:
        assert db.refresh() is True
        assert word in trouble(db, b"joe")
        write_cdb(tmp_path, assigned(joe=b"joe"))
        assert found(db, b"joe").name == b"joe"


def test_damaged_record_is_trouble_for_that_local_part_only(tmp_path: Path) -> None:
    write_cdb(tmp_path, {**assigned(joe=b"joe"), b"!ann\0": b"ann\x00503"})
    with database(tmp_path) as db:
        assert b"6 fields" in trouble(db, b"ann")
        assert found(db, b"joe").uid == 503


def test_cdb_that_cannot_be_opened_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users/cdb").mkdir()
    with database(tmp_path) as db:
        assert b"unable to look up" in trouble(db, b"joe")
    (tmp_path / "users/cdb").rmdir()
    (tmp_path / "users/cdb").symlink_to("cdb")
    with database(tmp_path) as db:
        assert b"unable to look up" in trouble(db, b"joe")


def test_root_and_homeless_accounts_fall_to_alias(tmp_path: Path) -> None:
    assert passwd.by_name(b"nobody") is not None
    with database(tmp_path) as db:
        for local in (b"root", b"Root-x", b"nobody", b"-", b"x" * 1000):
            user = found(db, local)
            assert (user.uid, user.gid) == (ALIAS.uid, ALIAS.gid)
            assert user.home == os.fsencode(tmp_path / "alias")
            assert (user.dash, user.ext) == (b"-", local)
            assert user.ownership is Ownership.TRUSTED


def test_missing_alias_directory_means_nobody(tmp_path: Path) -> None:
    db = UserDb(str(tmp_path), accounts(), single_user=False)
    assert isinstance(db.find(b"bill"), NoUser)


@dataclass(frozen=True, kw_only=True)
class Login:
    name: bytes
    account: Account
    home: Path


@pytest.fixture
def login() -> Iterator[Login]:
    """A real account with a home of its own, for the time of the test."""
    name = f"qsendt{secrets.token_hex(4)}"
    home = Path(f"/tmp/{name}")
    try:
        subprocess.run(
            ["useradd", "-M", "-U", "-d", home, name], check=True, capture_output=True
        )
        entry = passwd.by_name(name.encode())
        assert entry is not None
        home.mkdir()
        os.chown(home, entry.account.uid, entry.account.gid)
        yield Login(name=name.encode(), account=entry.account, home=home)
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.root
def test_real_account_owns_its_name_and_extensions(
    tmp_path: Path, login: Login
) -> None:
    want = User(
        name=login.name,
        uid=login.account.uid,
        gid=login.account.gid,
        home=os.fsencode(login.home),
        dash=b"",
        ext=b"",
        ownership=Ownership.UID,
    )
    with database(tmp_path) as db:
        assert db.find(login.name) == want
        assert db.find(login.name.upper()) == want
        extended = db.find(login.name.upper() + b"-List-X")
        assert extended == replace(want, dash=b"-", ext=b"List-X")
        assert found(db, login.name + b"s").uid == ALIAS.uid
        os.chown(login.home, 0, 0)
        assert found(db, login.name).uid == ALIAS.uid
        login.home.rmdir()
        assert found(db, login.name).uid == ALIAS.uid
        login.home.symlink_to(login.home)
        assert found(db, login.name).uid == ALIAS.uid
        login.home.unlink()


@pytest.mark.root
def test_users_cdb_comes_before_the_accounts(tmp_path: Path, login: Login) -> None:
    name = login.name
    write_cdb(
        tmp_path, {b"!%b-" % name: b"mapped\x00503\x0078\0/home/m\0-\0", b"": b"-"}
    )
    with database(tmp_path) as db:
        assert found(db, name + b"-x").name == b"mapped"
        assert found(db, name).name == name


@pytest.mark.root
def test_alias_account_by_name_uses_the_alias_directory(
    tmp_path: Path, login: Login
) -> None:
    made = replace(accounts(), alias=login.account)
    with database(tmp_path, made) as db:
        os.chown(tmp_path / "alias", login.account.uid, login.account.gid)
        user = found(db, login.name + b"-x")
        assert user.home == os.fsencode(tmp_path / "alias")
        assert (user.dash, user.ext) == (b"-", b"x")


@pytest.mark.root
def test_single_user_mode_serves_that_user_and_alias(
    tmp_path: Path, login: Login
) -> None:
    made = Accounts(**{field.name: login.account for field in fields(Accounts)})
    with database(tmp_path, made, single_user=True) as db:
        own = found(db, login.name.upper() + b"-X")
        assert (own.home, own.ext, own.ownership) == (
            os.fsencode(login.home),
            b"X",
            Ownership.UID,
        )
        assert found(db, login.name).dash == b""
        for local in (b"daemon", b"root", b"postmaster"):
            other = found(db, local)
            assert other.home == os.fsencode(tmp_path / "alias")
            assert (other.uid, other.ext) == (login.account.uid, local)
        for local, dash, ext in ((b"Alias", b"", b""), (b"alias-V-x", b"-", b"V-x")):
            named = found(db, local)
            assert named.home == os.fsencode(tmp_path / "alias")
            assert (named.uid, named.dash, named.ext) == (login.account.uid, dash, ext)
