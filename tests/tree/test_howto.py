"""The steps of a qmail howto: first aliases, sendmail's links, rc, /etc/aliases.

What it says of dot-qmail files and virtual domains is in test_virtual_domains.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import run_program
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree
from tests.tree.homes import UNKNOWN_UID, Account, make_users
from tests.tree.test_delivery import contents, count_mbox
from tests.tree.test_forwarding import MAILDIR, MESSAGE, PROCMAIL
from tests.tree.test_qmail_start import start_by

pytestmark = pytest.mark.root


def start_by_rc(tree: Tree, default_delivery: str) -> None:
    """Start the tree by an rc file, as its boot script does."""
    rc = tree.home / "rc"
    rc.write_text(
        "#!/bin/sh\n"
        f'exec env - PATH="{tree.home}/bin:$PATH" \\\n'
        f"qmail-start '{default_delivery}'\n"
    )
    rc.chmod(0o755)
    start_by(tree, [str(rc)])
    tree.wait_for(rb"status: local 0/")


@pytest.fixture
def skel_account(open_tmp: Path, login: str) -> Iterator[Account]:
    """An account whose home was made from a skeleton with a Maildir in it."""
    skel = open_tmp / "skel"
    skel.mkdir()
    assert run_program("maildirmake", str(skel / "Maildir")).returncode == 0
    name = f"{login}s"
    home = open_tmp / "made"
    command = ["useradd", "-m", "-k", str(skel), "-U", "-d", str(home), name]
    subprocess.run(command, check=True, capture_output=True)
    try:
        home.chmod(0o755)
        yield Account(name)
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


def test_rc_with_dot_forward_and_procmail(account: Account, tree: Tree) -> None:
    start_by_rc(tree, PROCMAIL)
    # What ps shows.
    for title in ("qmail-send", "qmail-lspawn", "qmail-clean"):
        assert len(tree.pids(title)) == 1
    assert tree.pids("qmail-remote")
    extended = b"%b-info@here.example" % account.name.encode()
    # There is no default delivery for an extension.
    tree.queue([account.address, extended], MESSAGE, b"#@[]")
    plain, unknown = tree.reports(account.address, extended)
    assert plain == b"success: did_0+0+2/"
    assert unknown.startswith(b"failure: ")
    assert count_mbox(account.spool) == 1
    # A .qmail file is obeyed in place of it; an empty one is as none.
    account.write(".qmail", "./Mailbox\n")
    tree.queue([account.address], MESSAGE)
    tree.wait_for(rb"delivery \d+: success: did_1\+0\+0/\n")
    account.write(".qmail", "")
    account.write(".forward", f"{account.name}, {account.name}-info\n")
    account.write(".qmail-info", "./Mailbox\n")
    tree.queue([account.address], MESSAGE)
    tree.wait_for(rb"end msg", count=2)
    tree.wait_empty()
    assert tree.stop() == 0
    # dot-forward sends the copy, and procmail has the message, too.
    assert re.search(rb" success: dot-forward:_qp_\d+/did_0\+0\+2/\n", tree.log)
    assert count_mbox(account.spool) == 2
    assert count_mbox(account.home / "Mailbox") == 2


def test_rc_with_dot_forward_and_maildirs_of_the_skeleton(
    skel_account: Account, tree: Tree
) -> None:
    user = skel_account
    start_by_rc(tree, MAILDIR)
    maildir = user.home / "Maildir"
    tree.queue([user.address], MESSAGE)
    assert tree.reports(user.address) == [b"success: did_1+0+1/"]
    [path] = (maildir / "new").iterdir()
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (user.uid, 0o600)
    # A Maildir that root made and did not give away.
    for each in (maildir, *maildir.rglob("*")):
        os.chown(each, 0, 0)
    tree.queue([user.address], MESSAGE)
    tree.wait_for(rb"delivery \d+: deferral: .*\(#4\.\d\.\d\)/\n")
    user.own(maildir)
    tree.run("flush", "all")
    tree.wait_for(rb"delivery \d+: success: did_1\+0\+1/\n")
    user.write(".forward", 'somebody@far.example, "|cat >$HOME/copy"\n')
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.run("reload")
        tree.queue([user.address], MESSAGE)
        tree.wait_for(rb"end msg", count=3)
        tree.wait_empty()
        assert tree.stop() == 0
        assert b"RCPT TO:<somebody@far.example>" in peer.commands
    assert len(contents(maildir)) == 2
    assert (user.home / "copy").read_bytes().endswith(MESSAGE)


def test_mail_of_root_and_postmaster_goes_to_users(tree: Tree, open_tmp: Path) -> None:
    homes = make_users(tree, open_tmp, "adam", "bob")
    for name, to in (("root", "adam"), ("postmaster", "bob"), ("mailer-daemon", "bob")):
        tree.alias(name, f"{to}\n")
    tree.start("--default-delivery", "./Maildir/")
    names = (b"root", b"Postmaster", b"MAILER-DAEMON", b"adam")
    tree.queue([b"%b@here.example" % name for name in names], MESSAGE)
    tree.wait_for(rb"end msg", count=4)
    assert len(contents(homes["adam"].home / "Maildir")) == 2
    # A message that fails, and whose bounce fails, is told to the postmaster.
    tree.queue([b"nobody@here.example"], MESSAGE, b"neither@here.example")
    tree.wait_for(rb"triple bounce|end msg", count=4)
    tree.wait_empty()
    assert tree.stop() == 0
    found = contents(homes["bob"].home / "Maildir")
    assert len(found) == 3
    [double] = [each for each in found if b"nobody@here.example" in each]
    assert double.startswith(b"Return-Path: <#@[]>\n")


def test_control_me_is_enough(tree: Tree, open_tmp: Path) -> None:
    homes = make_users(tree, open_tmp, "adam")
    for path in (tree.home / "control").iterdir():
        if path.name != "me":
            path.unlink()
    tree.start("--default-delivery", "./Maildir/")
    done = tree.program(
        "qmail-inject", "adam", stdin=b"Subject: bare\n\n", uid=UNKNOWN_UID
    )
    assert done.returncode == 0
    assert tree.reports(b"adam@here.example") == [b"success: did_1+0+0/"]
    assert tree.stop() == 0
    [content] = contents(homes["adam"].home / "Maildir")
    assert content.split(b"\n")[1] == b"Delivered-To: adam@here.example"
    assert b"\nFrom: anonymous@here.example\n" in content


@pytest.fixture
def usr(tree: Tree, open_tmp: Path) -> Path:
    """A /usr where sendmail's programs were moved away and ours are linked to."""
    for directory, name in (
        ("lib", "sendmail"),
        ("sbin", "sendmail"),
        ("sbin", "newaliases"),
    ):
        path = open_tmp / "usr" / directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\nexit 70\n")
        path.rename(f"{path}.old")
        path.symlink_to(tree.home / "bin" / name)
    # Some systems have only the one program, which looks at its name.
    bin_ = open_tmp / "usr/bin"
    bin_.mkdir()
    for name in ("newaliases", "mailq"):
        (bin_ / name).symlink_to("../sbin/sendmail")
    return open_tmp / "usr"


def test_sendmail_and_newaliases_are_links(
    tree: Tree, open_tmp: Path, usr: Path
) -> None:
    homes = make_users(tree, open_tmp, "adam", "bob")
    tree.alias("default", f"| fastforward -d {open_tmp}/aliases.cdb\n")
    tree.start("--default-delivery", "./Maildir/")
    header = b"From: Adam <adam>\nTo: staff\nCc: Bob <bob@here.example>\nBcc: adam\n"
    message = header + b"Subject: linked\n\n.\nend\n"
    for number, newaliases in enumerate(("sbin/newaliases", "bin/newaliases"), 1):
        (open_tmp / "aliases").write_text(f"staff: bob\nround{number}: adam\n")
        environ = {"ALIASES": str(open_tmp / "aliases")}
        tree.call([str(usr / newaliases)], env=environ)
        for sendmail in ("lib/sendmail", "sbin/sendmail"):
            args = ["-i", "-t", "-f", "adam@here.example", f"round{number}"]
            tree.call([str(usr / sendmail), *args], stdin=message, uid=UNKNOWN_UID)
            # The message; to staff and to the round, which fastforward sends on.
            tree.wait_for(rb"end msg", count=3)
    listed = tree.call([str(usr / "bin/mailq")]).stdout
    assert tree.call([str(usr / "sbin/sendmail"), "-bp"]).stdout == listed
    tree.wait_empty()
    assert tree.stop() == 0
    adam, bob = (contents(homes[name].home / "Maildir") for name in ("adam", "bob"))
    # Each time adam as Bcc and from the round, bob as Cc and from staff.
    assert (len(adam), len(bob)) == (8, 8)
    for content in adam + bob:
        assert content.startswith(b"Return-Path: <adam@here.example>\n")
        assert b"\nTo: staff@here.example\n" in content
        assert b"Bcc" not in content
        assert content.endswith(b"\n\n.\nend\n")


ALIASES = """\
# sendmail's aliases, continued over lines
postmaster: adam
Team: adam,
\tbob
all: team, "Full Name" <bob@here.example>, \\adam
tickets: "|cat >>tickets"
file: {alias}/archive
list: :include:{include}
owner-list: bob
# and virtual domains
sales@virtual.example: bob
@virtual.example: adam
"""


def test_etc_aliases_by_fastforward(tree: Tree, open_tmp: Path) -> None:
    homes = make_users(tree, open_tmp, "adam", "bob")
    adam, bob = (homes[name].home / "Maildir" for name in ("adam", "bob"))
    alias = tree.home / "alias"
    aliases, include = open_tmp / "aliases", open_tmp / "list"
    include.write_text("# members\nadam\nbob, far@away.example\n")
    aliases.write_text(ALIASES.format(alias=alias, include=include))
    environ = {"ALIASES": str(aliases)}
    newaliases = [str(tree.home / "bin/newaliases")]
    assert tree.program("newinclude", str(include)).returncode == 0
    tree.call(newaliases, env=environ)
    tree.alias("default", f"| fastforward -d {aliases}.cdb\n")
    tree.control("virtualdomains", "virtual.example:alias\n")

    def send(recip: bytes, ends: int) -> tuple[int, int]:
        """Send one message: how many copies adam has of it, and bob."""
        before = len(contents(adam)), len(contents(bob))
        tree.queue([recip], MESSAGE, b"adam@here.example")
        tree.wait_for(rb"end msg", count=ends)
        return len(contents(adam)) - before[0], len(contents(bob)) - before[1]

    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start("--default-delivery", "./Maildir/")
        # The installation's own ~alias/.qmail-postmaster would come first.
        (alias / ".qmail-postmaster").unlink()
        assert send(b"postmaster@here.example", 2) == (1, 0)
        assert send(b"TEAM@here.example", 2) == (1, 1)
        # An alias in an alias is sent to, not replaced by what it stands for.
        assert send(b"all@here.example", 3) == (2, 2)
        assert send(b"tickets@here.example", 1) == (0, 0)
        assert send(b"file@here.example", 1) == (0, 0)
        # Members get it from the owner.
        assert send(b"list@here.example", 2) == (1, 1)
        assert b"MAIL FROM:<owner-list@here.example>" in peer.commands
        assert send(b"Sales@virtual.example", 2) == (0, 1)
        assert send(b"else@virtual.example", 2) == (1, 0)
        # Nobody at all: the bounce goes back to adam.
        assert send(b"unknown@here.example", 2) == (1, 0)
        # Changes are in force at once, but not those that newaliases refuses.
        aliases.write_text("Team: bob\nloop: loop2\nloop2: loop\n")
        tree.call(newaliases, env=environ)
        assert send(b"team@here.example", 2) == (0, 1)
        aliases.write_text("team: " + "a" * 1000 + "\n")
        assert tree.call(newaliases, env=environ, check=False).returncode == 100
        assert send(b"team@here.example", 2) == (0, 1)
        # A loop ends where the message comes by again.
        tree.queue([b"loop@here.example"], MESSAGE, b"#@[]")
        tree.wait_for(rb"failure: .*\(#5\.4\.6\)/\n")
        tree.wait_empty()
        assert tree.stop() == 0
    assert (alias / "tickets").read_bytes().startswith(b"From adam@here.example ")
    assert count_mbox(alias / "archive") == 1
