"""Users, addresses and instructions made by commands: whois says what then happens."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qsend.core.lookups import Login, Proof, Verdict
from qsend.sysio.lookupclient import LookupClient
from tests.mariadb import Database, MariaDb
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree
from tests.tree.virtualmail import GID, UID, VirtualMail

pytestmark = pytest.mark.root


class Site:
    """A tree with a database, and the commands of its administrator."""

    def __init__(self, tree: Tree, database: Database, place: Path) -> None:
        self.tree = tree
        self.virtual = VirtualMail(tree, database, place / "mail")
        self.admin = place / "admin"
        login = {"login": database.admin_login, "password": database.admin_password}
        lines = database.control({"port": str(database.server.port), **login})
        self.admin.write_bytes(lines)
        self.admin.chmod(0o600)

    def run(self, command: str, *words: str, stdin: bytes = b"") -> str:
        """A command that must do; what it says."""
        options = ("--admin-file", str(self.admin), *words)
        done = self.tree.call(self.tree.command(command, *options), stdin=stdin)
        return done.stdout.decode()

    def add(self, name: str) -> None:
        place = (
            "--base",
            str(self.virtual.place),
            "--uid",
            str(UID),
            "--gid",
            str(GID),
        )
        self.run("user", "add", name, *place, stdin=b"secret\n")

    def whois(self, address: str, *more: str) -> subprocess.CompletedProcess[bytes]:
        return self.tree.run("whois", address, *more, check=False)

    def facts(self, address: str) -> Any:
        return self.tree.ask("whois", address)


@pytest.fixture
def site(tree: Tree, database: Database, open_tmp: Path) -> Site:
    return Site(tree, database, open_tmp)


def start(site: Site) -> Tree:
    site.tree.start("--default-delivery", "./Maildir/")
    return site.tree


def test_mail_reaches_what_commands_have_made(site: Site) -> None:
    with Peer(LOCKSTEP) as peer:
        site.tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree = start(site)
        site.add("dmp")
        site.add("iain")
        site.run("virtual", "add", "diane.p@tterson.net", "dmp")
        site.run("virtual", "add", "@iain.cx", "iain", "--ext", "@")
        site.run("alias", "add", "iain", "--ext", "@", "./Maildir/")
        site.run("alias", "add", "iain", "--ext", "away", "iain@far.example")
        site.run("rcpthost", "add", "tterson.net", "iain.cx")
        tree.run("reload")
        before = {
            "diane.p@tterson.net": ("dmp@tterson.net", "maildir", "./Maildir/"),
            "dmp@here.example": ("dmp@here.example", "maildir", "./Maildir/"),
            "News@iain.cx": ("iain-News@iain.cx", "maildir", "./Maildir/"),
            "away@iain.cx": ("iain-away@iain.cx", "forward", "iain@far.example"),
        }
        for address, (stored, does, what) in before.items():
            told = site.facts(address)
            assert told["asked"] == "the running system"
            assert (told["fate"], told["stored"]) == ("is delivered", stored)
            [line] = told["delivery"]["lines"]
            assert (line["does"], line["what"], line["problem"]) == (does, what, "")
            if not address.endswith("here.example"):
                assert told["outside"] == "accepted, by the rcpthosts table"
        assert site.whois("bogus@tterson.net").returncode == 1
        tree.queue([address.encode() for address in before])
        tree.reports(*(stored.encode() for stored, _, _ in before.values()))
        tree.wait_empty()
        assert len(peer.contents) == 1
    dmp, iain = site.virtual.delivered_to("dmp"), site.virtual.delivered_to("iain")
    assert dmp == [b"dmp@here.example", b"dmp@tterson.net"]
    assert iain == [b"iain-News@iain.cx"]


def test_login_follows_passwd_and_suspend(site: Site) -> None:
    tree = start(site)
    site.add("dmp")

    def verdict(secret: bytes) -> Verdict:
        with LookupClient(str(tree.home)) as client:
            login = Login(proof=Proof.PASS, name=b"dmp", secret=secret)
            return client.verify(login).verdict

    assert verdict(b"secret") is Verdict.OK
    told = site.run("user", "passwd", "dmp", "--generate", stdin=b"")
    password = told.split()[-1].encode()
    assert verdict(password) is Verdict.OK
    assert verdict(b"secret") is Verdict.WRONG
    site.run("user", "suspend", "dmp")
    assert verdict(password) is Verdict.SUSPENDED
    tree.queue([b"dmp@here.example"])
    tree.wait_for(rb"end msg \d+\n")
    assert site.virtual.delivered_to("dmp") == [b"dmp@here.example"]
    site.run("user", "resume", "dmp")
    assert verdict(password) is Verdict.OK


def test_removed_user_gets_no_mail_and_whois_says_so(site: Site) -> None:
    tree = start(site)
    site.add("dmp")
    assert site.facts("dmp@here.example")["fate"] == "is delivered"
    site.run("user", "remove", "dmp", "--delete-home")
    assert not (site.virtual.place / "dmp").exists()
    tree.run("reload")
    done = site.whois("dmp@here.example")
    assert done.returncode == 1
    assert b"no mailbox row and no account 'dmp'" in done.stdout
    tree.queue([b"dmp@here.example"])
    [report] = tree.reports(b"dmp@here.example")
    assert report.startswith(b"failure")
    assert b"#5.1.1" in report


def test_same_is_said_by_files_as_by_the_running_system(site: Site) -> None:
    site.add("dmp")
    site.run("virtual", "add", "a@v.example", "dmp")
    addresses = ("a@v.example", "b@v.example", "dmp-x", "postmaster", "x@far.example")
    more = ("--files", "--default-delivery", "./Maildir/")
    lines = [site.whois(each, *more).stdout.splitlines() for each in addresses]
    start(site)
    for address, by_files in zip(addresses, lines, strict=True):
        asked = site.whois(address).stdout.splitlines()
        assert b"no system was asked" in by_files[1]
        assert asked == [by_files[0], *by_files[2:]]


def test_down_and_up_again(
    tree: Tree, own_mariadb: MariaDb, own_database: Database, open_tmp: Path
) -> None:
    site = Site(tree, own_database, open_tmp)
    start(site)
    site.add("dmp")
    own_mariadb.stop()
    done = site.whois("dmp@here.example")
    assert done.returncode == 111
    assert b"so it waits: the database does not answer" in done.stdout
    assert b"to mend it: start the database server" in done.stdout
    tree.queue([b"dmp@here.example"])
    tree.find(rb"new mail waits in todo: the database does not answer")
    own_mariadb.start()
    tree.find(rb"the database answers again")
    tree.reports(b"dmp@here.example")
    assert site.facts("dmp@here.example")["fate"] == "is delivered"


def test_others_than_root_learn_nothing(site: Site) -> None:
    tree = start(site)
    site.add("dmp")
    command = tree.command("whois", "dmp@here.example")
    done = tree.call(command, uid=64900, check=False)
    assert done.returncode == 100
    assert done.stdout == b""
    assert re.search(rb"sqlserver: unreadable: Permission denied", done.stderr)
    command = tree.command("user", "list")
    assert tree.call(command, uid=64900, check=False).returncode == 100


def test_single_user_explains_its_own_mail(user_tree: Tree) -> None:
    tree = user_tree
    tree.alias("list", "./Maildir/\n")
    done = tree.run("whois", "--files", "alias-list", check=False)
    assert done.returncode == 111
    assert b"so it waits: there is no directory ./Maildir/" in done.stdout
    tree.maildir()
    tree.start()
    told = tree.ask("whois", "alias-list")
    assert (told["asked"], told["fate"]) == ("the running system", "is delivered")
    assert told["user"]["uid"] == tree.uid != os.getuid()
