"""Delivery programs of others in dot-qmail files: filters, and what answers mail.

procmail with formail, and maildrop with mailbot, as Debian has them.
"""

from __future__ import annotations

import email
import re

import pytest

from tests.tree.harness import Tree
from tests.tree.homes import Account
from tests.tree.test_delivery import contents, count_mbox

pytestmark = pytest.mark.root

ME = b"me@here.example"


def ask(subject: bytes = b"hello", extra: bytes = b"") -> bytes:
    """A message to an account named by `%b`, from another address than it is sent by.

    Answers are for the envelope's sender.
    """
    header = b"From: Desk <desk@here.example>\nTo: <%%b>\n%bSubject: %b\n"
    return header % (extra, subject) + b"\nAre you there?\n"


def deliver(tree: Tree, account: Account, message: bytes, sender: bytes = ME) -> None:
    """Send a message, and wait until all that comes of it has left the queue."""
    text = message.replace(b"%b", account.address)
    tree.queue([account.address], text, sender)
    tree.wait_for(rb"end msg")
    tree.wait_empty()


PROCMAILRC = """\
# One delivery program for all addresses of this user
EXTENSION=$1
:0
* ^Subject: *spam
{
  EXITCODE=77
  HOST
}
:0
* ^Subject: *later
{
  EXITCODE=75
  HOST
}
:0
* ^Subject: *quiet
/dev/null
:0
* EXTENSION ?? lists-(.*)
lists/
:0
* EXTENSION ?? .
ext
:0
inbox/
"""


def test_procmail_filters_all_addresses_of_a_user(account: Account, tree: Tree) -> None:
    account.write(".procmailrc", PROCMAILRC)
    line = '|preline procmail -a "$EXT"\n'
    account.write(".qmail", line)
    account.write(".qmail-default", line)
    name = account.name.encode()
    plain, to_list, other = (
        b"%b%b@here.example" % (name, ext) for ext in (b"", b"-lists-Qmail", b"-shop")
    )
    tree.start()
    tree.queue([plain, to_list, other], b"Subject: hello\n\n")
    assert set(tree.reports(plain, to_list, other)) == {b"success: did_0+0+1/"}
    for subject, said in (
        (b"spam", b"failure: "),
        (b"later", b"deferral: "),
        (b"quiet", b"success: did_0+0+1/"),
    ):
        tree.queue([plain], b"Subject: %b\n\n" % subject, b"#@[]")
        tree.wait_for(rb"\ndelivery \d+: " + said.replace(b"+", rb"\+"))
    assert tree.stop() == 0
    for box in ("inbox", "lists"):
        [content] = contents(account.home / box)
        assert b"\nDelivered-To: " in content
        assert content.endswith(b"Subject: hello\n\n")
    assert count_mbox(account.home / "ext") == 1


MAILFILTER = """\
if (/^Subject: *spam/)
{
  echo "No spam, please. (#5.7.1)"
  EXITCODE=100
  exit
}
if (/^Subject: *later/)
{
  EXITCODE=75
  exit
}
if (/^Subject: *hello/)
{
  cc "! copies@here.example"
}
if ($EXT =~ /^box-(.*)/)
{
  to "other"
}
to "./Maildir"
"""


def test_maildrop_filters_and_says_why_not(account: Account, tree: Tree) -> None:
    sendmail = f"SENDMAIL={tree.home}/bin/sendmail\n"
    account.write(".mailfilter", sendmail + MAILFILTER, 0o600)
    copies = tree.maildir("copies")
    tree.alias("copies", "./copies/\n")
    account.write(".qmail", "|preline -f maildrop\n")
    # Only with the name of a file maildrop sees the environment.
    account.write(".qmail-box-default", "|preline -f maildrop ./.mailfilter\n")
    maildir = account.maildir(tree)
    tree.start()
    for subject, said in (
        (b"spam", b"failure: No_spam,_please._(#5.7.1)/"),
        (b"later", b"deferral: "),
        (b"hello", b"success: did_0+0+1/"),
    ):
        tree.queue([account.address], b"Subject: %b\n\n" % subject, b"#@[]")
        tree.wait_for(rb"(?m)^delivery \d+: " + re.escape(said))
        tree.wait_for(rb"status: ")
    boxed = account.name.encode() + b"-box-a@here.example"
    tree.queue([boxed], b"Subject: hello\n\n")
    assert tree.reports(boxed) == [b"success: did_0+0+1/"]
    assert tree.stop() == 0
    assert len(contents(maildir)) == 1
    assert len(contents(copies)) == 2
    assert count_mbox(account.home / "other") == 1


def replies(tree: Tree) -> list[bytes]:
    """What has come back to me."""
    return contents(tree.home / "alias/replies")


def expect_reply(tree: Tree, account: Account, count: int) -> None:
    """So many answers have come, all of them such that they are not answered."""
    found = replies(tree)
    assert len(found) == count
    for each in found:
        reply = email.message_from_bytes(each)
        assert reply["Return-Path"] == "<>"
        assert reply["Delivered-To"] == ME.decode()
        assert account.name in reply["From"]
        assert "I am away." in reply.get_payload()


def test_mailbot_answers_each_sender_once_and_no_bounces(
    account: Account, tree: Tree
) -> None:
    tree.maildir("replies")
    tree.alias("me", "./replies/\n")
    maildir = account.maildir(tree)
    account.write("away", "I am away.\n")
    account.write(
        ".qmail",
        '|test -z "${SENDER%#@[]}" || mailbot -N -t away -d seen -D 7'
        f" -A 'From: <{account.name}@here.example>'"
        f" {tree.home}/bin/sendmail -f '' -- \"$SENDER\"\n"
        "./Maildir/\n",
    )
    tree.start()
    deliver(tree, account, ask())
    expect_reply(tree, account, 1)
    assert b"\nSubject: Re: hello\n" in replies(tree)[0]
    # Not twice; not a mailing list; not a bounce, not even a forged one.
    deliver(tree, account, ask(b"again"))
    deliver(tree, account, ask(extra=b"Precedence: bulk\n"), b"list@here.example")
    for sender in (b"", b"#@[]"):
        deliver(tree, account, ask(), sender)
    expect_reply(tree, account, 1)
    assert len(contents(maildir)) == 5
    # Two of them are not in each other's hands for ever.
    tree.alias("me", f"&{account.name}@here.example\n./replies/\n")
    for path in account.home.glob("seen*"):
        path.unlink()
    deliver(tree, account, ask(b"round"))
    expect_reply(tree, account, 2)
    assert tree.stop() == 0


VACATION = """\
SHELL=/bin/sh
SENDMAIL={sendmail}
:0 Whc: vacation.lock
* $^To:.*\\<{name}
* !^FROM_DAEMON
* !^X-Loop: {name}@here.example
| formail -rD 8192 vacation.cache

  :0 ehc
  | (formail -rI"Precedence: junk" -I"From: <{name}@here.example>" \\
       -A"X-Loop: {name}@here.example" ; echo "I am away.") | $SENDMAIL -oi -t -f "<>"

:0
Maildir/
"""


def test_procmail_and_formail_answer_each_sender_once(
    account: Account, tree: Tree
) -> None:
    tree.maildir("replies")
    tree.alias("me", "./replies/\n")
    maildir = account.maildir(tree)
    text = VACATION.format(sendmail=tree.home / "bin/sendmail", name=account.name)
    account.write(".procmailrc", text)
    tree.start("--default-delivery", "|dot-forward .forward\n|preline procmail")
    deliver(tree, account, ask())
    expect_reply(tree, account, 1)
    loop = b"X-Loop: %b\n" % account.address
    for message, sender in (
        (ask(b"again"), ME),
        (ask(extra=loop), b"other@here.example"),
        (ask(extra=b"Precedence: list\n"), b"list@here.example"),
        (ask(), b""),
        (b"Subject: not to me\n\n", b"other@here.example"),
    ):
        deliver(tree, account, message, sender)
    expect_reply(tree, account, 1)
    # The answer comes back, as to somebody who has such a program, too.
    [answer] = replies(tree)
    _, _, said = answer.partition(b"\nDelivered-To: me@here.example\n")
    deliver(tree, account, said.replace(b"To: ", b"To: %b, " % account.address), ME)
    expect_reply(tree, account, 1)
    assert len(contents(maildir)) == 7
    assert tree.stop() == 0


def test_qreceipt_tells_of_the_delivery(account: Account, tree: Tree) -> None:
    tree.maildir("replies")
    tree.alias("me", "./replies/\n")
    maildir = account.maildir(tree)
    address = account.address.decode()
    account.write(".qmail", f"|qreceipt {address}\n./Maildir/\n")
    tree.start()
    field = b"Notice-Requested-Upon-Delivery-To: %b\nMessage-ID: <1@here.example>\n"
    deliver(tree, account, ask(extra=field))
    deliver(tree, account, ask())
    deliver(tree, account, ask(extra=field), b"")
    [notice] = replies(tree)
    assert notice.startswith(b"Return-Path: <>\n")
    assert b"<1@here.example>" in notice
    assert account.address in notice
    assert len(contents(maildir)) == 3
    assert tree.stop() == 0
