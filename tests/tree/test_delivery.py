"""Local delivery by a whole tree: mailboxes, programs, forwards, whose mail it is."""

from __future__ import annotations

import mailbox
import os
import signal
from contextlib import closing
from pathlib import Path
from pwd import getpwnam

import cdblib
import pytest

from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree

HARD = (100, 64, 65, 70, 76, 77, 78, 112)
SOFT = (111, 1, 2, 63, 98, 101, 127, 255)
NO_MAILBOX = b"no_mailbox_here_by_that_name._(#5.1.1)"
MESSAGE = b"Subject: one\n\nFrom here\n>From there\nlast line without end"


def contents(maildir: Path) -> list[bytes]:
    """Every message of a maildir, in no order."""
    assert not list((maildir / "tmp").iterdir())
    return [path.read_bytes() for path in (maildir / "new").iterdir()]


def count_mbox(path: Path) -> int:
    with closing(mailbox.mbox(path)) as box:
        return len(box)


def test_maildir_and_mbox_get_the_message_whole(tree: Tree) -> None:
    maildir = tree.maildir()
    tree.alias("both", "# a comment\n./Maildir/\n./Mailbox\n")
    tree.start()
    tree.queue([b"both@here.example"], MESSAGE, b'"odd box"@x.example')
    assert tree.reports(b"both@here.example") == [b"success: did_2+0+0/"]
    head = (
        b'Return-Path: <"\\"odd box\\""@x.example>\nDelivered-To: both@here.example\n'
    )
    [content] = contents(maildir)
    assert content.startswith(head + b"Received: (qmail ")
    assert content.endswith(b"-0000\n" + MESSAGE)
    [message] = mailbox.Maildir(maildir)
    assert message["Subject"] == "one"
    mbox = (tree.home / "alias/Mailbox").read_bytes()
    assert mbox.startswith(b'From "odd-box"@x.example ')
    quoted = MESSAGE.replace(b">From", b">>From").replace(b"\nFrom", b"\n>From")
    assert mbox.endswith(quoted + b"\n\n")
    assert count_mbox(tree.home / "alias/Mailbox") == 1
    assert tree.stop() == 0
    assert not tree.queue_files()


def test_program_gets_the_message_and_its_environment(tree: Tree) -> None:
    tree.control("locals", "a.b.here.example\n")
    tree.alias(
        "list-default", "|env -0 >env.out; pwd >pwd.out; cat >message.out; echo said\n"
    )
    tree.start()
    recip = b"List-Sub-A.B@a.b.Here.example"
    tree.queue([recip], MESSAGE, b"me and you@x.example")
    assert tree.reports(recip) == [b"success: said/did_0+0+1/"]
    alias = tree.home / "alias"
    pairs = (alias / "env.out").read_bytes().split(b"\0")[:-1]
    found = dict(pair.split(b"=", 1) for pair in pairs)
    assert found.pop(b"UFLINE").startswith(b"From me-and-you@x.example ")
    account = b"alias" if tree.uid == 0 else found[b"USER"]
    want = {
        b"SENDER": b"me and you@x.example",
        b"NEWSENDER": b"me and you@x.example",
        b"RECIPIENT": recip,
        b"LOCAL": b"List-Sub-A.B",
        b"HOST": b"a.b.Here.example",
        b"HOST2": b"a.b.Here",
        b"HOST3": b"a.b",
        b"HOST4": b"a",
        b"USER": account,
        b"HOME": os.fsencode(alias),
        b"EXT": b"List-Sub-A.B",
        b"EXT2": b"Sub-A.B",
        b"EXT3": b"A.B",
        b"EXT4": b"",
        b"DEFAULT": b"Sub-A.B",
        b"DTLINE": b"Delivered-To: " + recip + b"\n",
        b"RPLINE": b'Return-Path: <"me and you"@x.example>\n',
    }
    assert want.items() <= found.items()
    assert found.keys() - want.keys() <= {b"PATH", b"PWD", b"QSEND_HOME"}
    assert (alias / "pwd.out").read_text() == f"{alias}\n"
    given = (alias / "message.out").read_bytes()
    assert given.startswith(b"Received: (qmail ")
    assert given.endswith(MESSAGE)


def test_exit_codes_of_programs_decide(tree: Tree) -> None:
    tree.control("bouncehost", "elsewhere.example\n")
    tree.alias("code-default", "|echo code $DEFAULT; exit $DEFAULT\n./Mailbox\n")
    tree.alias("killed", "|kill -9 $$\n")
    tree.start()
    codes = (0, 99, *HARD, *SOFT)
    recips = [b"code-%d@here.example" % code for code in codes]
    tree.queue([*recips, b"killed@here.example"], sender=b"#@[]")
    said = dict(zip(codes, tree.reports(*recips), strict=True))
    assert said.pop(0) == b"success: code_0/did_1+0+1/"
    assert said.pop(99) == b"success: code_99/did_0+0+1/"
    for code in HARD:
        assert said.pop(code) == b"failure: code_%d/" % code
    for code in SOFT:
        assert said.pop(code) == b"deferral: code_%d/" % code
    [killed] = tree.reports(b"killed@here.example")
    assert killed.startswith(b"deferral: ")
    assert killed.endswith(b"(#4.3.0)/")
    # Only the program that exited 0 let the next line have the message.
    assert count_mbox(tree.home / "alias/Mailbox") == 1


def test_forwards_are_one_message_with_its_way_noted(tree: Tree) -> None:
    first, second = tree.maildir("first"), tree.maildir("second")
    tree.alias("fan", "&one@here.example\n|exit 99\n&never@here.example\n")
    tree.alias("one", "two@here.example\n./first/\n&here-only\n")
    tree.alias("two", "./second/\n")
    tree.alias("here-only", "./second/\n")
    tree.start()
    tree.queue([b"fan@here.example"], MESSAGE)
    fan, one, two, bare = tree.reports(
        *(b"%b@here.example" % each for each in (b"fan", b"one", b"two", b"here-only"))
    )
    assert fan.startswith(b"success: did_0+1+1/qp_")
    assert one.startswith(b"success: did_1+2+0/qp_")
    assert two == bare == b"success: did_1+0+0/"
    tree.wait_for(rb"end msg \d+\n", count=3)
    [once] = contents(first)
    assert once.count(b"\nDelivered-To: ") == 2
    assert b"\nDelivered-To: fan@here.example\nReceived: " in once
    assert all(each.endswith(MESSAGE) for each in contents(second))
    newest = sorted(each["Delivered-To"] for each in mailbox.Maildir(second))
    assert newest == ["here-only@here.example", "two@here.example"]
    assert tree.stop() == 0
    assert not tree.queue_files()


def test_default_delivery_alias_and_what_nobody_takes(tree: Tree) -> None:
    maildir = tree.maildir()
    tree.alias("empty", "")
    tree.alias("list-default", "|echo for $DEFAULT\n")
    tree.alias("list-a:b-default", "|echo dots for $DEFAULT\n")
    tree.alias("list-exact", "|echo exact ${DEFAULT-unset}\n")
    tree.start("--default-delivery", "./Maildir/\n|echo second line")
    names = (b"empty", b"list-X-y", b"LIST-a.B-C", b"list-exact", b"list", b"nobody-x")
    recips = [name + b"@here.example" for name in names]
    tree.queue(recips, sender=b"#@[]")
    assert tree.reports(*recips) == [
        b"success: second_line/did_1+0+1/",
        b"success: for_X-y/did_0+0+1/",
        b"success: dots_for_C/did_0+0+1/",
        b"success: exact_unset/did_0+0+1/",
        b"failure: Sorry,_" + NO_MAILBOX + b"/",
        b"failure: Sorry,_" + NO_MAILBOX + b"/",
    ]
    assert len(contents(maildir)) == 1
    # The catch-all takes the rest, from the next message on.
    tree.alias("default", "|echo all else, $DEFAULT\n")
    tree.queue([b"Any-Body@here.example"], sender=b"#@[]")
    [report] = tree.reports(b"Any-Body@here.example")
    assert report == b"success: all_else,_Any-Body/did_0+0+1/"


def test_forward_only_files_and_a_blank_first_line_wait(tree: Tree) -> None:
    tree.alias("xbit", "./Mailbox\n").chmod(0o744)
    tree.alias("plus", "|echo before\n+list\n&nobody@here.example\n./Mailbox\n")
    tree.alias("blank", "\n./Mailbox\n")
    tree.alias("writable", "./Mailbox\n").chmod(0o646)
    tree.start()
    names = (b"xbit", b"plus", b"blank", b"writable")
    recips = [name + b"@here.example" for name in names]
    tree.queue(recips)
    xbit, plus, blank, writable = tree.reports(*recips)
    for report in (xbit, writable):
        assert report.startswith(b"deferral: ")
        assert report.endswith(b"(#4.7.0)/")
    assert plus.startswith(b"deferral: before/")
    assert plus.endswith(b"(#4.7.0)/")
    assert blank.startswith(b"deferral: ")
    assert blank.endswith(b"(#4.2.1)/")
    assert not (tree.home / "alias/Mailbox").exists()
    # Nothing was forwarded: the line after the last forward failed.
    assert tree.log.count(b"new msg ") == 1


@pytest.mark.parametrize("default", [False, True], ids=["owner", "owner-default"])
def test_owner_files_make_the_sender_of_forwards(tree: Tree, default: bool) -> None:
    tree.alias("list", "&a@x.example\n&b@y.example\n")
    tree.alias("list-owner", "")
    if default:
        tree.alias("list-owner-default", "")
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        tree.queue([b"list@here.example"])
        tree.reports(b"a@x.example", b"b@y.example")
        froms = {each for each in peer.commands if each.startswith(b"MAIL")}
        tree.stop()
    if not default:
        assert froms == {b"MAIL FROM:<list-owner@here.example>"}
        assert b" from <list-owner@here.example> qp " in tree.log
        return
    assert froms == {
        b"MAIL FROM:<list-owner-a=x.example@here.example>",
        b"MAIL FROM:<list-owner-b=y.example@here.example>",
    }
    assert b" from <list-owner-@here.example-@[]> qp " in tree.log


def test_own_delivered_to_line_is_a_loop(tree: Tree) -> None:
    maildir = tree.maildir()
    tree.alias("looped", "./Maildir/\n")
    tree.alias("circle", "&circle@here.example\n")
    tree.start()
    line = b"Delivered-To: looped@here.example\n"
    tree.queue([b"looped@here.example"], b"Subject: x\n" + line + b"\n", b"#@[]")
    [report] = tree.reports(b"looped@here.example")
    assert report.startswith(b"failure: ")
    assert report.endswith(b"(#5.4.6)/")
    other = b"Delivered-To: Looped@here.example\n\n" + line
    tree.queue([b"looped@here.example"], other, b"#@[]")
    tree.wait_for(rb"delivery 2: success: did_1\+0\+0/\n")
    assert len(contents(maildir)) == 1
    tree.queue([b"circle@here.example"], sender=b"#@[]")
    # What was forwarded may be attempted before its forwarding is reported.
    tree.find(rb"delivery 3: success: did_0\+1\+0/qp_\d+/\n")
    tree.find(rb"delivery 4: failure: .*\(#5\.4\.6\)/\n")


@pytest.mark.root
def test_real_account_gets_its_mail_as_itself(login: str, tree: Tree) -> None:
    entry = getpwnam(login)
    home = Path(entry.pw_dir)
    maildir = tree.maildir(home=home)
    (home / ".qmail-ext-default").write_text(
        "|echo $(id -u) $(id -g) $(id -G) $USER $EXT $DEFAULT $(pwd)\n"
    )
    tree.start("--default-delivery", "./Maildir/")
    plain = f"{login.upper()}@here.example".encode()
    extended = f"{login}-Ext-Y@here.example".encode()
    absent = f"{login}-none@here.example".encode()
    tree.queue([plain, extended, absent], sender=b"#@[]")
    ids = f"{entry.pw_uid}_{entry.pw_gid}_{entry.pw_gid}"
    assert tree.reports(plain, extended, absent) == [
        b"success: did_1+0+0/",
        f"success: {ids}_{login}_Ext-Y_Y_{home}/did_0+0+1/".encode(),
        b"failure: Sorry,_" + NO_MAILBOX + b"/",
    ]
    [path] = (maildir / "new").iterdir()
    assert path.stat().st_uid == entry.pw_uid
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.root
def test_home_that_others_may_write_or_that_is_sticky_waits(
    login: str, tree: Tree
) -> None:
    home = Path(getpwnam(login).pw_dir)
    maildir = tree.maildir(home=home)
    tree.start("--default-delivery", "./Maildir/")
    recip = f"{login}@here.example".encode()
    for mode, status in ((0o757, rb"\(#4\.7\.0\)"), (0o1755, rb"\(#4\.2\.1\)")):
        home.chmod(mode)
        tree.queue([recip])
        tree.wait_for(rb"delivery \d+: deferral: .*" + status + b"/\n")
    home.chmod(0o755)
    tree.signal(signal.SIGALRM)
    tree.wait_for(rb"delivery \d+: success: did_1\+0\+0/\n", count=2)
    assert len(contents(maildir)) == 2


@pytest.mark.root
def test_root_is_no_user_and_alias_takes_its_mail(tree: Tree) -> None:
    maildir = tree.maildir()
    before = set(Path("/root").iterdir())
    tree.start("--default-delivery", "./Maildir/\n|id -un")
    recips = [b"root@here.example", b"root-x@here.example"]
    tree.queue(recips, sender=b"#@[]")
    assert tree.reports(*recips) == [
        b"success: alias/did_1+0+1/",
        b"failure: Sorry,_" + NO_MAILBOX + b"/",
    ]
    assert len(contents(maildir)) == 1
    assert set(Path("/root").iterdir()) == before


@pytest.mark.root
def test_users_cdb_gives_mail_to_a_uid_without_an_account(
    tree: Tree, open_tmp: Path
) -> None:
    uid = 64911
    home = open_tmp / "box"
    home.mkdir(mode=0o755)
    os.chown(home, uid, uid)
    maildir = tree.maildir(home=home)
    (home / ".qmail-in").write_text("|echo $(id -u) $(id -G) $EXT $USER\n")
    value = b"box\0%d\0%d\0%b\0%%b\0%%b" % (uid, uid, os.fsencode(home))
    with (tree.home / "users/cdb").open("wb") as file, cdblib.Writer(file) as writer:
        writer.put(b"!sales\0", value % (b"", b""))
        writer.put(b"!sales-", value % (b"-", b""))
        writer.put(b"!zero\0", b"root\x000\x000\0/root\0\0")
        writer.put(b"", b"-")
    tree.start("--default-delivery", "./Maildir/")
    names = (b"Sales", b"sales-in", b"sales-out", b"zero")
    recips = [name + b"@here.example" for name in names]
    tree.queue(recips, sender=b"#@[]")
    plain, inside, outside, zero = tree.reports(*recips)
    assert plain == b"success: did_1+0+0/"
    assert inside == b"success: %d_%d_in_box/did_0+0+1/" % (uid, uid)
    assert outside == b"failure: Sorry,_" + NO_MAILBOX + b"/"
    assert zero.startswith(b"deferral: ")
    assert b"alert: qmail-lspawn: mail for user root, uid 0: " in tree.log
    [path] = (maildir / "new").iterdir()
    assert path.stat().st_uid == uid
