"""qsend user: rows in a real MariaDB, homes of real uids."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from qsend.core.passwords import Kind
from qsend.sysio.passwordcheck import check
from tests.cli.adminhome import GID, UID, AdminHome


@pytest.fixture
def admin(admin_home: AdminHome) -> AdminHome:
    return admin_home


def facts_of(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, found.st_mode & 0o7777


def test_add_makes_row_home_and_maildir(admin: AdminHome) -> None:
    done = admin.add("Joe")
    home = admin.mail / "joe"
    paths = [home, *(home / each for each in ("Maildir", *MAILDIR))]
    made = "".join(f"made {path}\n" for path in paths)
    assert done.out == f"{made}user joe: uid {UID}, gid {GID}, home {home}\n"
    assert (done.code, done.err) == (0, "")
    for path in paths:
        assert facts_of(path) == (UID, GID, 0o700)
    columns = "username, uid, gid, home, password_type, suspended"
    want = ("joe", UID, GID, str(home), "Crypt-Password", "N")
    assert admin.rows("mailbox", columns) == [want]
    [(stored,)] = admin.rows("mailbox", "password")
    assert check(str(stored).encode(), "Crypt-Password", b"secret")


MAILDIR = ("Maildir/tmp", "Maildir/new", "Maildir/cur")


@pytest.mark.parametrize("kind", Kind)
def test_password_of_each_type_lets_in(admin: AdminHome, kind: Kind) -> None:
    words = ("--password-type", kind.value.lower())
    assert admin.add("joe", *words, stdin="pässwörd #1\n".encode()).code == 0
    [(stored, name)] = admin.rows("mailbox", "password, password_type")
    assert name == kind.value
    assert check(str(stored).encode(), kind.value, "pässwörd #1".encode())
    assert not check(str(stored).encode(), kind.value, b"another")


def test_generated_password_is_told_once_and_lets_in(admin: AdminHome) -> None:
    told = admin.add("joe", "--generate", "--json", stdin=b"").facts["password"]
    [(stored,)] = admin.rows("mailbox", "password")
    assert len(told) == 16
    assert check(str(stored).encode(), "Crypt-Password", told.encode())
    other = admin.run("user", "passwd", "joe", "--generate").out.split()[-1]
    [(stored,)] = admin.rows("mailbox", "password")
    assert other != told
    assert check(str(stored).encode(), "Crypt-Password", other.encode())


def test_password_follows_the_administrators_on_standard_input(
    admin: AdminHome,
) -> None:
    words = ("--admin-login", admin.database.admin_login, "--admin-password-file", "-")
    place = ("--base", str(admin.mail), "--uid", str(UID), "--gid", str(GID))
    stdin = f"{admin.database.admin_password}\nsecret\n".encode()
    command = ("user", "add", "--home", str(admin.home), "joe", *place, *words)
    assert admin.bare(*command, stdin=stdin).code == 0
    [(stored,)] = admin.rows("mailbox", "password")
    assert check(str(stored).encode(), "Crypt-Password", b"secret")


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\0b\n", "control character"),
        (b"\xff\n", "not UTF-8"),
        (b"x" * 513 + b"\n", "longer than 512"),
    ],
)
def test_password_that_cannot_be_one(admin: AdminHome, stdin: bytes, said: str) -> None:
    done = admin.add("joe", stdin=stdin)
    assert done.code == 100
    assert said in done.err
    assert admin.rows("mailbox") == []
    assert list(admin.mail.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "the name is blank"),
        (" ", "blank"),
        (" joe", "starts or ends with a blank"),
        ("a\nb", "not printable"),
        ("x" * 256, "longer than 255"),
        ("alias", "mail that nobody else has"),
        ("a/b", "no name of a directory"),
        ("..", "no name of a directory"),
        ("root", "account of the system"),
        ("qmailq", "account of the system"),
        ("daemon", "account of this machine (uid 1)"),
        ("forward", "magic forwarding"),
    ],
)
def test_name_that_is_refused(admin: AdminHome, name: str, said: str) -> None:
    done = admin.add(name)
    assert done.code == 100
    assert said in done.err
    assert admin.rows("mailbox") == []
    assert list(admin.mail.iterdir()) == []


def test_what_is_probably_not_meant_can_be_forced(admin: AdminHome) -> None:
    done = admin.add("forward", "--force")
    assert done.code == 0
    assert done.err.startswith("qsend user add: warning: the name forward belongs")
    admin.control("magicforwarding", "1\n")
    assert admin.run("user", "remove", "forward").code == 0
    done = admin.add("forward", "--force")
    assert done.code == 100
    assert "must be no user forward" in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--uid", "0"), "deliveries as root are refused"),
        (("--uid", "99"), "below control/sqlminuid (100)"),
        (("--uid", "-5"), "numbers from 0"),
        (("--gid", "0"), "root's group"),
        (("--directory", "mail/joe"), "no absolute path"),
        (("--directory", "/"), "no absolute path"),
        (("--directory", "/mail/../joe"), "not plain"),
        (("--directory", "/nowhere/joe"), "make it first"),
    ],
)
@pytest.mark.root
def test_place_that_is_refused(
    admin: AdminHome, options: tuple[str, ...], said: str
) -> None:
    done = admin.add("joe", *options)
    assert (done.code, said in done.err) == (100, True), done
    assert admin.rows("mailbox") == []


@pytest.mark.root
def test_uid_of_qsend_is_refused(admin: AdminHome) -> None:
    done = admin.add("joe", "--owner", "qmails", "--uid", str(_uid("qmails")))
    assert done.code == 100
    assert "deliveries as qmails are refused" in done.err


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def test_second_user_of_a_name_and_of_a_home(admin: AdminHome) -> None:
    assert admin.add("joe").code == 0
    done = admin.add("joe")
    assert (done.code, "mailbox has joe already" in done.err) == (100, True)
    done = admin.add("ann", "--directory", str(admin.mail / "joe"))
    assert (done.code, "is the home of joe" in done.err) == (100, True)
    done = admin.add("joe-x")
    assert (done.code, "as its extension x" in done.err) == (100, True)
    assert admin.add("joe-x", "--force").code == 0


def test_home_that_exists_is_taken_if_it_is_the_users(admin: AdminHome) -> None:
    home = admin.mail / "joe"
    home.mkdir()
    os.chown(home, UID, GID)
    (home / "keep").write_text("me")
    assert admin.add("joe").code == 0
    assert (home / "keep").read_text() == "me"
    assert (home / "Maildir/new").is_dir()


@pytest.mark.root
def test_home_of_another_is_refused(admin: AdminHome) -> None:
    home = admin.mail / "joe"
    home.mkdir()
    os.chown(home, UID, GID + 1)
    done = admin.add("joe")
    assert done.code == 100
    assert f"belongs to {UID}:{GID + 1}, and not to {UID}:{GID}" in done.err
    assert admin.rows("mailbox") == []


def test_link_in_place_of_a_home_is_refused(admin: AdminHome) -> None:
    (admin.mail / "joe").symlink_to("/etc")
    done = admin.add("joe")
    assert (done.code, "is a symbolic link" in done.err) == (100, True)
    assert admin.rows("mailbox") == []


@pytest.mark.root
def test_base_of_a_third_account_is_refused(admin: AdminHome) -> None:
    os.chown(admin.mail, 64712, GID)
    done = admin.add("joe")
    assert (done.code, "it must be root's alone" in done.err) == (100, True)


@pytest.mark.root
def test_base_of_root_does(admin: AdminHome) -> None:
    os.chown(admin.mail, 0, 0)
    assert admin.add("joe").code == 0
    assert facts_of(admin.mail / "joe/Maildir") == (UID, GID, 0o700)


@pytest.mark.root
def test_home_that_the_user_cannot_reach_is_told_with_the_mending(
    admin: AdminHome,
) -> None:
    os.chown(admin.mail, 0, 0)
    admin.mail.chmod(0o700)
    done = admin.add("joe")
    assert done.code == 100
    assert f"{admin.mail}: Permission denied; `chmod o+x {admin.mail}`" in done.err
    admin.mail.chmod(0o711)
    assert admin.add("joe").code == 0


@pytest.mark.root
def test_owner_gives_uid_gid_and_base(admin: AdminHome) -> None:
    done = admin.run(
        "user",
        "add",
        "joe",
        "--owner",
        "nobody",
        "--base",
        str(admin.mail),
        "--generate",
    )
    assert done.code == 100  # the base is not nobody's
    assert "it must be root's alone" in done.err
    done = admin.run("user", "add", "joe", "--owner", "no-such-account")
    assert (done.code, "no account no-such-account" in done.err) == (100, True)
    done = admin.run(
        "user", "add", "joe", "--owner", "nobody", "--no-home", "--no-password"
    )
    assert done.code == 0
    assert admin.rows("mailbox", "uid, home, password") == [
        (65534, "/nonexistent/joe", "")
    ]


def test_suspend_and_resume(admin: AdminHome) -> None:
    admin.add("joe")
    assert "may not log in" in admin.run("user", "suspend", "Joe").out
    assert admin.rows("mailbox", "suspended") == [("Y",)]
    assert admin.run("user", "resume", "joe").out == "user joe may log in\n"
    assert admin.rows("mailbox", "suspended") == [("N",)]
    for action in ("suspend", "resume", "passwd", "remove"):
        done = admin.run("user", action, "nobody-here")
        assert (done.code, done.err) == (
            1,
            f"qsend user {action}: mailbox has no nobody-here\n",
        )


def test_list_shows_everything_but_passwords(admin: AdminHome) -> None:
    assert (admin.run("user", "list").code, admin.run("user", "list").out) == (
        1,
        "none\n",
    )
    admin.add("joe", "--password-type", "Password")
    admin.add("ann@host.example")
    done = admin.run("user", "list", "--json")
    assert [row["username"] for row in done.facts] == ["ann@host.example", "joe"]
    assert set(done.facts[0]) == {
        "username", "uid", "gid", "home", "password_type", "suspended",
    }  # fmt: skip
    lines = admin.run("user", "list", "joe").out.splitlines()
    assert lines[0].split()[0] == "username"
    assert lines[1].split()[:2] == ["joe", str(UID)]
    assert "secret" not in done.out + "".join(lines)


def test_remove_tells_what_stays(admin: AdminHome) -> None:
    admin.add("joe")
    admin.run("virtual", "add", "joe@v.example", "joe")
    admin.run("alias", "add", "joe", "ann@b.example")
    done = admin.run("user", "remove", "joe")
    assert done.out.splitlines() == [
        "user joe is removed",
        f"{admin.mail}/joe stays",
        "rows of virtual for it: 1; they stay, and lead to nobody",
        "rows of alias for it: 1; they stay, and lead to nobody",
    ]
    assert (admin.mail / "joe/Maildir/new").is_dir()
    assert admin.add("joe").code == 0  # the home is its own
    facts = admin.run("user", "remove", "--rows", "--json", "joe").facts
    assert facts["removed"]["username"] == "joe"
    assert admin.rows("virtual") == admin.rows("alias") == []


def test_delete_home(admin: AdminHome) -> None:
    admin.add("joe")
    (admin.mail / "joe/Maildir/new/1").write_text("mail")
    (admin.mail / "joe/.qmail").symlink_to("/etc/passwd")
    done = admin.run("user", "remove", "joe", "--delete-home")
    assert (done.code, done.err) == (0, "")
    assert f"{admin.mail}/joe is removed" in done.out
    assert list(admin.mail.iterdir()) == []
    assert Path("/etc/passwd").exists()


def refused_deletion(admin: AdminHome) -> str:
    """Nothing was removed, and the row is still there; why."""
    done = admin.run("user", "remove", "joe", "--delete-home")
    assert done.code in (100, 111)
    assert ("joe",) in admin.rows("mailbox", "username")
    return done.err


def test_delete_home_refuses_links(admin: AdminHome) -> None:
    admin.add("joe")
    real = admin.mail / "real"
    (admin.mail / "joe").rename(real)
    (admin.mail / "joe").symlink_to(real)
    assert "is a symbolic link" in refused_deletion(admin)
    assert (real / "Maildir/new").is_dir()
    (admin.mail / "joe").unlink()
    link = admin.mail / "link"
    link.symlink_to(admin.mail)
    real.rename(admin.mail / "joe")
    admin.database.load(f"UPDATE mailbox SET home = '{link}/joe'")
    assert "reached over a symbolic link" in refused_deletion(admin)


@pytest.mark.root
def test_delete_home_refuses_another_owner(admin: AdminHome) -> None:
    admin.add("joe")
    os.chown(admin.mail / "joe", UID, 0)
    assert "belongs to" in refused_deletion(admin)
    os.chown(admin.mail / "joe", UID, GID)
    inner = admin.mail / "joe/theirs"
    inner.mkdir(mode=0o700)
    (inner / "file").write_text("kept")
    err = refused_deletion(admin)
    assert "could be removed: " in err
    assert (inner / "file").read_text() == "kept"


def test_delete_home_refuses_a_home_with_homes_in_it(admin: AdminHome) -> None:
    admin.add("joe")
    admin.add("ann", "--directory", str(admin.mail / "joe/ann"))
    assert "holds the home" in refused_deletion(admin)
    assert (admin.mail / "joe/ann/Maildir/new").is_dir()


def test_running_account_cannot_write(admin: AdminHome) -> None:
    reader = admin.home.parent / "reader"
    reader.write_bytes(admin.database.sqlserver)
    reader.chmod(0o600)
    admin.admin_file = reader
    done = admin.run("user", "add", "joe", "--no-home", "--no-password", *PLACE)
    assert done.code == 111
    assert "INSERT command denied" in done.err


PLACE = ("--uid", str(UID), "--gid", str(GID), "--directory", "/nowhere/joe")


def test_tables_of_an_operators_own_keep_their_columns(admin: AdminHome) -> None:
    admin.database.load(
        "ALTER TABLE mailbox ADD COLUMN note VARCHAR(9) NOT NULL DEFAULT 'x' FIRST,"
        " MODIFY password VARCHAR(60)"
    )
    done = admin.add("joe")
    assert done.code == 111
    assert "Data too long for column 'password'" in done.err
    assert admin.rows("mailbox") == []
    assert admin.add("joe", "--password-type", "MySQL-Password").code == 0
    assert admin.rows("mailbox", "note, username") == [("x", "joe")]


def test_without_sqlserver_there_is_no_database(admin: AdminHome) -> None:
    (admin.home / "control/sqlserver").unlink()
    done = admin.run("user", "list")
    assert done.code == 100
    assert "control/sqlserver: missing" in done.err
