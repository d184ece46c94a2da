"""Whose mail is taken, how much of it, and what is refused, by listener and program."""

from __future__ import annotations

import re
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.smtpdtree import Raw, SmtpTree, tcpserver

pytestmark = pytest.mark.root

PASSWORD = "pass word"
Both = tuple[SmtpTree, int]
MAIL = b"MAIL FROM:<a@far.example>"


@pytest.fixture(params=["listener", "tcpserver"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def serving(smtp: SmtpTree, kind: str) -> Iterator[int]:
    """The tree, running with control/tcp.smtp.cdb; the port of the server."""
    smtp.start()
    if kind == "listener":
        yield smtp.port
    else:
        rules = str(smtp.tree.home / "control/tcp.smtp.cdb")
        with tcpserver(smtp, "-x", rules, "-X") as port:
            yield port


RECIPIENTS = [
    (b"<box@here.example>", 250),
    (b"<box@HERE.Example>", 250),
    (b"<any@a.b.sub.example>", 250),
    (b"<any@sub.example>", 553),
    (b"<a@far.example>", 553),
    (b"<a%far.example@here.example>", 250),
    (b"<a@far.example@here.example>", 250),
    (b"<@here.example:a@far.example>", 553),
    (b"<box>", 250),
    (b"<>", 250),
    (b"<box@[127.0.0.1]>", 250),
    (b"<box@[192.0.2.77]>", 553),
    (b"<box@more.example>", 250),
    (b'<"box "@here.example>', 250),
    (b"box@here.example", 250),
    (b"<" + b"a" * 886 + b"@here.example>", 250),
    (b"<" + b"a" * 887 + b"@here.example>", 555),
    (b"<box@here.example> NOTIFY=NEVER", 555),
]


def test_recipients(both: Both) -> None:
    tree, port = both
    tree.tree.control("morercpthosts", "more.example\n")
    assert tree.tree.program("qmail-newmrh").returncode == 0
    with Raw(port) as raw:
        for recip, code in RECIPIENTS:
            assert raw.ask(MAIL).startswith(b"250")
            assert int(raw.ask(b"RCPT TO:" + recip)[:3]) == code, recip


def test_relayclient_databytes_and_deny_come_from_the_rules(
    unstarted: SmtpTree, kind: str
) -> None:
    unstarted.tree.control("databytes", "100\n")
    unstarted.rules(
        '127.0.0.2:allow,RELAYCLIENT="@out.example",DATABYTES="200"\n'
        "127.0.0.3:deny\n"
        '127.0.0.4:allow,RELAYCLIENT=""\n'
    )
    with serving(unstarted, kind) as port:
        with Raw(port, "127.0.0.2") as raw:
            assert b"250-SIZE 200\r\n" in raw.ask(b"EHLO x")
            assert raw.codes(MAIL + b"\r\nRCPT TO:<b@far.example>\r\n", 2) == [250, 250]
            assert raw.ask(b"DATA").startswith(b"354")
            assert raw.ask(b"x" * 150 + b"\r\n.").startswith(b"250")
        unstarted.tree.wait_for(rb"to remote b@far\.example@out\.example\n")
        with Raw(port, "127.0.0.3") as raw:
            assert raw.greeting[:3] in (b"554", b"")
        with Raw(port, "127.0.0.4") as raw:
            assert raw.codes(MAIL + b"\r\nRCPT TO:<b@far.example>\r\n", 2) == [250, 250]
        with Raw(port) as raw:
            assert raw.codes(MAIL + b"\r\nRCPT TO:<b@far.example>\r\n", 2) == [250, 553]
            assert raw.ask(MAIL + b" SIZE=101").startswith(b"552")
            assert raw.ask(MAIL + b" SIZE=100").startswith(b"250")


def test_databytes_counts_the_message_alone(unstarted: SmtpTree, kind: str) -> None:
    unstarted.tree.control("databytes", "100\n")
    with serving(unstarted, kind) as port:
        for size, code in ((100, 250), (101, 552)):
            check_size(port, size, code)


def check_size(port: int, size: int, code: int) -> None:
    with Raw(port) as raw:
        text = MAIL + b"\r\nRCPT TO:<box@here.example>\r\nDATA\r\n"
        assert raw.codes(text, 3) == [250, 250, 354]
        raw.send(b"." + b"." * (size - 51) + b"\r\n" + b"y" * 49 + b"\r\n.\r\n")
        assert int(raw.reply()[:3]) == code
        assert raw.ask(b"NOOP").startswith(b"250")
        assert raw.ask(b"DATA").startswith(b"503")


def test_hops_are_counted_in_the_header(both: Both) -> None:
    for hops, code in ((99, 250), (100, 554)):
        check_hops(both[1], hops, code)


def check_hops(port: int, hops: int, code: int) -> None:
    fields = b"RECEIVED: x\r\n" * (hops - 1) + b"Delivered-To: a\r\n"
    others = b"Received-SPF: x\r\nX: y\r\n Received: z\r\n" * 100
    with Raw(port) as raw:
        text = MAIL + b"\r\nRCPT TO:<box@here.example>\r\nDATA\r\n"
        assert raw.codes(text, 3) == [250, 250, 354]
        raw.send(fields + others + b"\r\n" + b"Received: x\r\n" * 200 + b".\r\n")
        assert int(raw.reply()[:3]) == code


def test_badmailfrom_is_said_at_rcpt(unstarted: SmtpTree, kind: str) -> None:
    unstarted.tree.control("badmailfrom", "bad@far.example\n@worse.example\n")
    with serving(unstarted, kind) as port, Raw(port) as raw:
        for sender in (b"Bad@far.example", b"x@WORSE.example"):
            assert raw.ask(b"MAIL FROM:<%b>" % sender).startswith(b"250")
            assert raw.ask(b"RCPT TO:<box@here.example>") == (
                b"553 5.7.1 sorry, your envelope sender is in my badmailfrom list"
                b" (#5.7.1)\r\n"
            )


def test_without_rcpthosts_nobody_relays(unstarted: SmtpTree, kind: str) -> None:
    unstarted.tree.control("rcpthosts", None)
    with serving(unstarted, kind) as port, Raw(port) as raw:
        assert raw.ask(MAIL).startswith(b"250")
        assert raw.ask(b"RCPT TO:<b@far.example>").startswith(b"553 5.7.1")
        assert raw.ask(b"RCPT TO:<box@here.example>").startswith(b"553 5.7.1")
    unstarted.tree.find(rb"warning: qmail-smtpd: control/rcpthosts is missing")


def test_recipients_are_counted(unstarted: SmtpTree, kind: str) -> None:
    unstarted.tree.control("maxrecipients", "2\n")
    with serving(unstarted, kind) as port, Raw(port) as raw:
        rcpt = b"RCPT TO:<box@here.example>\r\n"
        assert raw.codes(MAIL + b"\r\n" + rcpt * 3, 4) == [250, 250, 250, 452]
        assert raw.ask(b"DATA").startswith(b"354")
        assert raw.ask(b".").startswith(b"250")


def test_recipientcheck_knows_users_and_aliases(unstarted: SmtpTree, kind: str) -> None:
    unstarted.tree.control("recipientcheck", "1\n")
    unstarted.rules('127.0.0.4:allow,RELAYCLIENT=""\n')
    with serving(unstarted, kind) as port:
        with Raw(port) as raw:
            assert raw.ask(MAIL).startswith(b"250")
            for recip, code in (
                (b"box@here.example", 250),
                (b"nobody-such@here.example", 550),
                (b"any@a.sub.example", 250),
            ):
                assert int(raw.ask(b"RCPT TO:<%b>" % recip)[:3]) == code
        with Raw(port, "127.0.0.4") as raw:
            assert raw.ask(MAIL).startswith(b"250")
            assert raw.ask(b"RCPT TO:<nobody-such@here.example>").startswith(b"250")


def test_a_full_disk_defers_and_is_told_once(unstarted: SmtpTree, kind: str) -> None:
    unstarted.tree.control("queueminfree", f"{1 << 62}\n")
    with serving(unstarted, kind) as port:
        for _ in range(3):
            with Raw(port) as raw:
                text = MAIL + b"\r\nRCPT TO:<box@here.example>\r\nDATA\r\n"
                assert raw.codes(text, 3) == [250, 250, 354]
                raw.send(b"x" * 200_000 + b"\r\n.\r\n")
                assert raw.reply().startswith(b"451 4.3.0 qq write error or disk full")
                assert raw.ask(b"NOOP").startswith(b"250")
        unstarted.tree.control("queueminfree", "1000000\n")
        unstarted.tree.run("reload")
        unstarted.tree.wait_for(b"reread controls: generation 2")
        with unstarted.client(port) as client:
            client.sendmail("a@far.example", ["box@here.example"], b"x\r\n")
    unstarted.tree.wait_for(rb"end msg")
    assert unstarted.tree.log.count(b"warning: enqueue: control/queueminfree") <= 2


def test_enqueue_may_be_replaced_at_any_time(smtp: SmtpTree) -> None:
    [pid] = smtp.tree.pids("qmail-queue")
    with smtp.client() as client:
        client.mail("a@far.example")
        client.rcpt("box@here.example")
        assert client.docmd("DATA")[0] == 354
        subprocess.run(["kill", "-9", str(pid)], check=True)
        smtp.tree.wait_for(rb"lost qmail-queue")
        client.send(b"x\r\n.\r\n")
        assert client.getreply()[0] == 451
    smtp.tree.find(rb"lost qmail-queue")

    def is_back() -> bool:
        with smtp.client() as client:
            try:
                client.sendmail("a@far.example", ["box@here.example"], b"x\r\n")
            except smtplib.SMTPDataError:
                return False
        return True

    while not is_back():
        pass
    smtp.tree.wait_for(rb"end msg")


def set_password(mailbox: str) -> None:
    """One that smtplib can say."""
    told = f"{mailbox}:{PASSWORD}\n".encode()
    subprocess.run(["chpasswd"], input=told, check=True)


def test_submission_wants_a_login_inside_tls(unstarted: SmtpTree, mailbox: str) -> None:
    set_password(mailbox)
    unstarted.tree.control("systemlogins", "1\n")
    unstarted.start()
    with unstarted.client(unstarted.submission) as client:
        assert "auth" not in client.esmtp_features
        assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] == 538
        assert client.mail("a@far.example")[0] == 530
        client.starttls(context=unstarted.context())
        client.ehlo()
        assert client.esmtp_features["auth"] == " PLAIN LOGIN"
        with pytest.raises(smtplib.SMTPAuthenticationError, match=r"5\.7\.8"):
            client.login(mailbox, "wrong")
        client.login(mailbox, PASSWORD)
        client.sendmail("me@here.example", ["b@far.example"], b"S: x\r\n\r\n")
    unstarted.tree.wait_for(rb"to remote b@far\.example\n")
    shown = re.escape(mailbox).encode()
    unstarted.tree.find(rb"(?m)^login: %b from 127.0.0.1: accepted" % shown)
    [queued] = unstarted.queued()
    assert re.search(
        rb"Received: from unknown \(HELO c\.example\) \(%b@127\.0\.0\.1\)\n"
        rb"  by here\.example with ESMTPSA; " % shown,
        queued.read_bytes(),
    )


def test_tls_from_the_first_byte(unstarted: SmtpTree, mailbox: str) -> None:
    set_password(mailbox)
    unstarted.tree.control("systemlogins", "1\n")
    unstarted.start()
    for mechanism in ("plain", "login"):
        with smtplib.SMTP_SSL(
            "localhost", unstarted.tls_port, context=unstarted.context(), timeout=60
        ) as client:
            client.ehlo()
            assert "starttls" not in client.esmtp_features
            client.user, client.password = mailbox, PASSWORD
            assert (
                client.auth(mechanism, getattr(client, f"auth_{mechanism}"))[0] == 235
            )
            client.sendmail("me@here.example", ["box@here.example"], b"x" * 500_000)
    unstarted.tree.wait_for(rb"end msg", 2)


HEADERS = [
    (b"PROXY TCP4 192.0.2.9 127.0.0.1 4444 25\r\n", b"192.0.2.9"),
    (b"PROXY TCP6 2001:db8::9 ::1 4444 25\r\n", b"2001:db8::9"),
    (
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\x7f\0\0\x01\x11\x5c\0\x19",
        b"192.0.2.9",
    ),
    (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0", b"127.0.0.5"),
]


def test_a_balancer_says_whose_client_it_has(unstarted: SmtpTree) -> None:
    unstarted.tree.control("smtpproxies", "127.0.0.4/31\n")
    unstarted.rules('192.0.2.9:allow,RELAYCLIENT=""\n')
    unstarted.start()
    for header, address in HEADERS:
        with Raw(unstarted.port, "127.0.0.5", header) as raw:
            assert raw.ask(MAIL).startswith(b"250")
            code = b"250" if address == b"192.0.2.9" else b"553"
            assert raw.ask(b"RCPT TO:<b@far.example>").startswith(code)
            assert raw.ask(b"RCPT TO:<box@here.example>").startswith(b"250")
            assert raw.ask(b"DATA").startswith(b"354")
            assert raw.ask(b"x\r\n.").startswith(b"250")
        unstarted.tree.wait_for(rb"new msg")
        # Others may say so, too, and it means nothing.
        with Raw(unstarted.port, "127.0.0.1", header) as raw:
            assert raw.greeting.startswith(b"220")
            assert raw.line()[:3] in (b"502", b"500")
    unix = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + b"/run/a".ljust(216, b"\0")
    for junk in (b"EHLO x\r\n" + b"x" * 200, unix):
        with Raw(unstarted.port, "127.0.0.5", junk) as raw:
            assert raw.greeting == b""
        unstarted.tree.wait_for(rb"(?m)^warning: .*no PROXY header from 127.0.0.5: ")
    # One that only looks whether somebody is there, and goes.
    there = "127.0.0.1", unstarted.port
    socket.create_connection(there, 60, ("127.0.0.5", 0)).close()
    unstarted.tree.wait_for(rb"no PROXY header from 127.0.0.5: the connection ended")
    for line in (b"broke down", b"PROXY error"):
        assert line not in unstarted.tree.log
