"""Aliases, .forward files and delivery programs of others, through a whole tree."""

from __future__ import annotations

import re

import pytest

from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree
from tests.tree.homes import Account
from tests.tree.test_delivery import contents, count_mbox

MESSAGE = b"Subject: one\n\nFrom here\n"
PROCMAIL = "|dot-forward .forward\n|preline procmail"
MAILDIR = "|dot-forward .forward\n./Maildir/"


def wait_for_ends(tree: Tree, count: int) -> bytes:
    """Wait until so many messages have left the queue; the log of all this."""
    start = len(tree.log)
    tree.wait_for(rb"end msg \d+\n", count=count)
    return tree.log[start:]


ALIASES = """\
# of the whole machine
team: box, "far box"@x.example,
   tickets
tickets: "|cat >>tickets.out"
archive: {archive}
nobody: /dev/null
staff: :include:{staff}
owner-staff: box
postmaster: root
desk@virtual.example: tickets
@virtual.example: team
"""


def test_aliases_by_fastforward(tree: Tree) -> None:
    alias = tree.home / "alias"
    maildir = tree.maildir()
    table = tree.home / "aliases"
    staff = tree.home / "staff"
    table.write_text(ALIASES.format(archive=alias / "archive", staff=staff))
    staff.write_text("box, tickets\n")
    for program, path in (("newaliases", table), ("newinclude", staff)):
        done = tree.program(program, str(path))
        assert (done.returncode, done.stderr) == (0, b"")
    tree.alias("default", f"| fastforward -d {table}.cdb\n")
    tree.alias("box", "./Maildir/\n")
    tree.control("virtualdomains", "virtual.example:alias\n")
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        names = ("Team", "tickets", "archive", "nobody", "staff")
        recips = [f"{name}@here.example".encode() for name in names]
        tree.queue(recips, MESSAGE)
        # The message, and those to the members of team and staff.
        wait_for_ends(tree, 3)
        team, tickets, archive, nobody, staffed = tree.reports(*recips)
        assert team.startswith(b"success: fastforward:_qp_")
        assert tickets == archive == nobody == b"success: did_0+0+1/"
        assert staffed.startswith(b"success: fastforward:_qp_")
        assert sorted(each.split(b"\n", 1)[0] for each in contents(maildir)) == [
            b"Return-Path: <me@elsewhere.example>",
            b"Return-Path: <owner-staff@here.example>",
        ]
        assert count_mbox(alias / "archive") == 1
        # The message; to tickets; to team; to the members of team.
        tree.queue([b"anybody@virtual.example", b"desk@virtual.example"], MESSAGE)
        wait_for_ends(tree, 4)
        assert len(contents(maildir)) == 3
        tree.queue([b"missing@here.example"], MESSAGE, b"#@[]")
        [missing] = tree.reports(b"missing@here.example")
        assert missing == b"failure: Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/"
        assert tree.stop() == 0
        assert peer.commands.count(b'RCPT TO:<"far box"@x.example>') == 2
    # Directly, from team, from staff; for desk@virtual.example, from team.
    piped = (alias / "tickets.out").read_bytes()
    assert piped.count(b"\nReturn-Path: <") == piped.count(b"\nFrom here\n") == 5


@pytest.mark.root
def test_default_delivery_by_dot_forward_and_procmail(
    account: Account, tree: Tree
) -> None:
    maildir = tree.maildir()
    tree.alias("box", "./Maildir/\n")
    tree.start("--default-delivery", PROCMAIL)
    tree.queue([account.address], MESSAGE)
    assert tree.reports(account.address) == [b"success: did_0+0+2/"]
    tree.wait_for(rb"end msg \d+\n")
    # Debian's procmail is setgid for this: it may write where its user may not.
    assert count_mbox(account.spool) == 1
    spooled = account.spool.read_bytes()
    lines = spooled.split(b"\n")
    assert lines[0].startswith(b"From me@elsewhere.example ")
    assert b"Return-Path: <me@elsewhere.example>" in lines[:4]
    assert b"Delivered-To: " + account.address in lines[:4]

    account.write(".forward", "box@here.example\n")
    tree.queue([account.address], MESSAGE)
    said = wait_for_ends(tree, 2)
    assert re.search(rb" success: dot-forward:_qp_\d+/did_0\+0\+1/\n", said)
    [content] = contents(maildir)
    assert b"\nDelivered-To: " + account.address + b"\n" in content
    assert account.spool.read_bytes() == spooled

    account.write("more", f"box@here.example\n{account.home}/archive\n")
    account.write(
        ".forward",
        f'\\{account.name}, "|cat >$HOME/piped"\n:include:{account.home}/more\n',
    )
    account.write(".procmailrc", ":0\n* ^Subject: one\nfiltered\n")
    tree.queue([account.address], MESSAGE)
    said = wait_for_ends(tree, 2)
    assert re.search(rb" success: dot-forward:_qp_\d+/did_0\+0\+2/\n", said)
    assert tree.stop() == 0
    assert len(contents(maildir)) == 2
    assert account.spool.read_bytes() == spooled
    for name in ("archive", "filtered"):
        path = account.home / name
        assert count_mbox(path) == 1
        assert path.stat().st_uid == account.uid
    piped = (account.home / "piped").read_bytes()
    assert piped.startswith(b"From me@elsewhere.example ")
    assert piped.endswith(MESSAGE)


@pytest.mark.root
def test_default_delivery_by_dot_forward_and_maildir(
    account: Account, tree: Tree
) -> None:
    maildir = tree.maildir(home=account.home)
    tree.start("--default-delivery", MAILDIR)
    tree.queue([account.address], MESSAGE)
    assert tree.reports(account.address) == [b"success: did_1+0+1/"]
    account.write(".forward", '"|exit 100"\n')
    tree.queue([account.address], MESSAGE, b"#@[]")
    tree.wait_for(rb" failure: ")
    account.write(".forward", '"|exit 75"\n')
    tree.queue([account.address], MESSAGE, b"#@[]")
    tree.wait_for(rb" deferral: ")
    assert len(contents(maildir)) == 1
    account.write(".forward", f"# me only\n{account.name}\n")
    tree.queue([account.address], MESSAGE)
    tree.wait_for(rb" success: did_1\+0\+1/")
    assert tree.stop() == 0
    assert len(contents(maildir)) == 2


@pytest.mark.root
def test_maildrop_as_the_delivery_program(account: Account, tree: Tree) -> None:
    maildir = tree.maildir(home=account.home)
    account.write(".qmail", "|preline -f maildrop\n", 0o600)
    account.write(
        ".mailfilter", 'if (/^Subject: one/)\n{\n  to "Maildir"\n}\nto "rest"\n', 0o600
    )
    tree.start()
    tree.queue([account.address], MESSAGE)
    assert tree.reports(account.address) == [b"success: did_0+0+1/"]
    tree.queue([account.address], b"Subject: two\n\n")
    tree.wait_for(rb"(?s)(success: did_0\+0\+1/.*){2}")
    assert tree.stop() == 0
    [content] = contents(maildir)
    assert content.startswith(b"Return-Path: <me@elsewhere.example>\nDelivered-To: ")
    assert content.endswith(MESSAGE)
    assert count_mbox(account.home / "rest") == 1


def test_conditions_in_dot_qmail_files(tree: Tree) -> None:
    maildir = tree.maildir()
    tree.alias("box", "./Maildir/\n")
    tree.alias(
        "picky",
        "|bouncesaying 'No viagra, please.' grep -q viagra\n"
        "|condredirect box@here.example grep -q invoice\n"
        "|except grep -q silence\n"
        "|if grep -q copy; then forward box@here.example; fi\n",
    )
    tree.start()
    said = []
    for word in (b"viagra", b"invoice", b"silence", b"copy", b"other"):
        tree.queue([b"picky@here.example"], b"Subject: x\n\n" + word + b"\n", b"#@[]")
        log = wait_for_ends(tree, 2 if word in (b"invoice", b"copy") else 1)
        [(delid, _)] = re.findall(rb"starting delivery (\d+): .*(picky)@", log)
        said += re.findall(rb"\ndelivery %b: (.*)\n" % delid, log)
    assert said[0] == b"failure: No_viagra,_please./"
    assert said[1].startswith(b"success: condredirect:_qp_")
    assert said[2] == b"failure: "
    assert said[3].startswith(b"success: ")
    assert said[4] == b"success: did_0+0+4/"
    assert tree.stop() == 0
    assert len(contents(maildir)) == 2
