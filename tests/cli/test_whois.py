"""qsend whois without a running system: files, a real MariaDB, real uids."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.adminhome import GID, UID, AdminHome, Ran
from tests.mariadb import Database, MariaDb

pytestmark = pytest.mark.root


@pytest.fixture
def admin(admin_home: AdminHome) -> AdminHome:
    admin_home.add("dmp")
    return admin_home


@pytest.fixture
def files(admin: AdminHome) -> AdminHome:
    """A home without a database."""
    (admin.home / "control/sqlserver").unlink()
    alias = admin.home / "alias"
    for name in ("Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"):
        (alias / name).mkdir()
        os.chown(alias / name, alias.stat().st_uid, -1)
    return admin


def whois(admin: AdminHome, address: str, *more: str) -> Ran:
    return admin.bare("whois", "--home", str(admin.home), *more, address)


def facts(admin: AdminHome, address: str, code: int = 0) -> Any:
    done = whois(admin, address, "--json", "--default-delivery", "./Maildir/")
    assert done.code == code, done
    return done.facts


# Files alone


def test_each_step_of_the_files_is_told(files: AdminHome) -> None:
    files.control("percenthack", "hack.example\n")
    files.control("virtualdomains", "v.example:alias-v\n")
    (files.home / "alias/.qmail-v-default").write_text("&a@b.example\n|true\n")
    done = whois(files, "joe%v.example@hack.example")
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.strip() for line in lines[2:10]] == [
        "1. control/percenthack has 'hack.example': it becomes 'joe@v.example'",
        "2. control/locals has no 'v.example'",
        "3. there is no database",
        "4. control/virtualdomains: 'joe@v.example' gets 'alias-v'",
        "5. it is local, as alias-v-joe@v.example",
        "6. users/cdb has no 'alias-v-joe'",
        "7. no account 'alias-v-joe'",
        "8. no account 'alias-v'",
    ]
    assert lines[-4:] == [
        "instructions: .qmail-v-default",
        "  forward a@b.example",
        "  program true",
        "so it is delivered",
    ]


@pytest.mark.parametrize(
    ("address", "fate", "code"),
    [
        ("postmaster", "is delivered", 0),
        ("nobody-like-this@here.example", "bounces", 1),
        ("a@far.example", "goes to another host", 0),
        ("@here.example", "vanishes", 0),
    ],
)
def test_fate_and_exit_code(
    files: AdminHome, address: str, fate: str, code: int
) -> None:
    assert facts(files, address, code)["fate"] == fate


def test_routes_are_told(files: AdminHome) -> None:
    assert facts(files, "a@far.example")["text"] == "by the MX records of far.example"
    files.control("smtproutes", "far.example:relay.example:26\n")
    text = facts(files, "a@far.example")["text"]
    assert text == "by control/smtproutes, to relay.example port 26"


def test_users_cdb_and_refused_uids(files: AdminHome) -> None:
    lines = "=joe:joe:0:0:/root:::\n=ann:ann:64990:64990:/nowhere:::\n.\n"
    (files.home / "users/assign").write_text(lines)
    newu = files.home / "bin/qmail-newu"
    assert os.spawnve(os.P_WAIT, newu, ["x"], {"QSEND_HOME": str(files.home)}) == 0
    found = facts(files, "joe@here.example", 111)
    assert "users/cdb has 'joe'" in found["steps"]
    assert found["text"] == "uid 0: deliveries as root are refused"
    found = facts(files, "ann@here.example", 111)
    assert found["text"].startswith("uid 64990 does not pass /nowhere: No such file")
    assert found["mending"] == [
        "make /nowhere, or mend the home in the row or file above"
    ]


def test_accounts_that_do_not_count_are_named(files: AdminHome) -> None:
    notes = facts(files, "root@here.example")["notes"]
    assert notes == ["account root does not count: root gets no mail"]
    [note] = facts(files, "daemon-x@here.example", 1)["notes"]
    assert note.startswith("account daemon does not count: its home")


def test_who_may_send_from_outside(admin: AdminHome) -> None:
    assert "refused, as" in facts(admin, "a@v.example")["outside"]
    admin.run("rcpthost", "add", ".example")
    assert facts(admin, "a@v.example")["outside"].endswith("the rcpthosts table")
    admin.control("rcpthosts", "v.example\n")
    assert facts(admin, "a@v.example")["outside"].endswith("control/rcpthosts")


# The database


def test_rows_that_answer_are_told(admin: AdminHome) -> None:
    admin.run("virtual", "add", "Diane.P@tterson.net", "dmp")
    found = facts(admin, "diane.p@tterson.net")
    assert "virtual row ('dmp', '', 'diane.p', 'tterson.net') matches" in found["steps"]
    assert f"mailbox row 'dmp': uid {UID}, gid {GID}" in found["steps"]
    assert (found["fate"], found["stored"]) == ("is delivered", "dmp@tterson.net")
    assert found["asked"] == "files"
    assert found["user"]["home"] == str(admin.mail / "dmp")
    assert found["delivery"]["lines"] == [
        {"does": "maildir", "what": "./Maildir/", "problem": ""}
    ]
    assert [stop["path"] for stop in found["way"]][-1] == str(admin.mail / "dmp")
    assert {stop["problem"] for stop in found["way"]} == {None}


def test_alias_rows_are_told(admin: AdminHome) -> None:
    admin.run("alias", "add", "dmp", "--ext", "@", "| preline procmail")
    admin.run("alias", "add", "dmp", "--ext", "@", "a@b.example")
    (admin.mail / "dmp/.qmail-x").write_text("never\n")
    found = facts(admin, "dmp-x@here.example")
    assert "alias rows ('dmp', '@') decide: 2 instructions" in found["steps"]
    lines = [(line["does"], line["what"]) for line in found["delivery"]["lines"]]
    assert lines == [("program", " preline procmail"), ("forward", "a@b.example")]
    assert found["delivery"]["tried"] == []


def test_catch_all_envnoathost_and_unknown_recipients(admin: AdminHome) -> None:
    admin.control("envnoathost", "there.example\n")
    admin.run("virtual", "add", "@there.example", "dmp", "--ext", "@")
    steps = facts(admin, "x@here.example", 1)["steps"]
    assert "the domain becomes 'there.example'" in steps
    assert "virtual row ('dmp', '@', '', 'there.example') matches" in steps
    admin.run("virtual", "add", "a@w.example", "dmp")
    found = facts(admin, "b@w.example", 1)
    assert found["fate"] == "bounces"
    assert found["mending"] == [
        "`qsend virtual add ADDRESS NAME`, or @HOST for all the others"
    ]


Plant = Callable[[AdminHome], object]


@pytest.mark.parametrize(
    ("plant", "text", "mending"),
    [
        (
            lambda admin: admin.mail.chmod(0o700),
            "Permission denied",  # lookup does not see whose the home is
            "chmod o+x",
        ),
        (
            lambda admin: (admin.mail / "dmp").rename(admin.mail / "gone"),
            "does not exist",
            "make the home",
        ),
        (
            lambda admin: (admin.mail / "dmp/Maildir").rename(admin.mail / "gone"),
            "there is no directory ./Maildir/",
            "maildirmake",
        ),
        (
            lambda admin: os.chown(admin.mail / "dmp/Maildir/new", 0, 0),
            "no permission to write in ./Maildir/new",
            "chown",
        ),
        (
            lambda admin: (admin.mail / "dmp").chmod(0o1700),
            "is sticky",
            "chmod -t",
        ),
        (
            lambda admin: (admin.mail / "dmp").chmod(0o702),
            "home directory is writable",
            "chmod go-w",
        ),
        (
            lambda admin: (admin.mail / "dmp/.qmail").write_text("\nx\n"),
            "first line of .qmail file is blank",
            "first line",
        ),
        (
            lambda admin: admin.database.load("UPDATE mailbox SET uid = 50"),
            "below control/sqlminuid",
            "uid of its own",
        ),
        (
            lambda admin: admin.database.load("UPDATE mailbox SET home = 'x'"),
            "MySQL misconfiguration: mailbox row 'dmp'",
            "mend that row",
        ),
        (
            lambda admin: admin.database.insert("alias", ("dmp", "", "", "")),
            "blank alias_username",
            "remove the wrong one",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_mending(
    admin: AdminHome, plant: Plant, text: str, mending: str
) -> None:
    plant(admin)
    found = facts(admin, "dmp@here.example", 111)
    assert found["fate"] == "waits"
    assert text in found["text"]
    assert mending in " ".join(found["mending"])


def test_home_that_another_group_owns_goes_to_alias(admin: AdminHome) -> None:
    os.chown(admin.mail / "dmp", UID, GID + 1)
    done = whois(admin, "dmp@here.example")
    assert done.code == 1
    assert f"belongs to {UID}:{GID + 1}, not to {UID}:{GID}" in done.out
    assert "to mend it: give the home the uid and gid of its row" in done.out


def test_directory_that_the_user_cannot_pass_is_the_one_that_is_named(
    admin: AdminHome,
) -> None:
    # users/cdb is trusted with any home; the way there is still the user's own.
    os.chown(admin.mail, 0, 0)
    admin.mail.chmod(0o700)
    lines = f"=dmp:dmp:{UID}:{GID}:{admin.mail}/dmp:::\n.\n"
    (admin.home / "users/assign").write_text(lines)
    newu = admin.home / "bin/qmail-newu"
    assert os.spawnve(os.P_WAIT, newu, ["x"], {"QSEND_HOME": str(admin.home)}) == 0
    found = facts(admin, "dmp@here.example", 111)
    assert found["text"] == f"uid {UID} does not pass {admin.mail}: Permission denied"
    assert found["mending"] == [
        f"`chmod o+x {admin.mail}` lets everybody pass, and list nothing"
    ]
    assert "stops here: Permission denied" in whois(admin, "dmp@here.example").out


def test_database_that_is_down_is_temporary(
    open_tmp: Path,
    own_mariadb: MariaDb,
    own_database: Database,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admin = AdminHome(open_tmp, own_database, capsys, monkeypatch)
    own_mariadb.stop()
    for address in ("dmp@here.example", "nobody@v.example"):
        found = facts(admin, address, 111)
        assert found["fate"] == "waits"
        assert found["text"].startswith("the database does not answer")
        assert "start the database server" in found["mending"][0]
    assert "refused temporarily" in found["outside"]


def test_secrets_are_not_told(admin: AdminHome) -> None:
    done = whois(admin, "dmp@here.example", "--json")
    assert admin.database.password not in done.out
    assert "secret" not in done.out


def test_strange_bytes_do_no_harm(admin: AdminHome) -> None:
    for address in ("\udcff@here.example", "a\x1b[2J@here.example", "a'b\\@v.example"):
        done = whois(admin, address)
        assert "\x1b" not in done.out
        assert done.out.splitlines()[-1]
