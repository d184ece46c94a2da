"""Mail filters at a running tree: libmilter's, opendkim, and filters that fail."""

from __future__ import annotations

import os
import re
import smtplib
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.miltertools import Libmilter, Opendkim, rspamd
from tests.smtpd.test_rules import PASSWORD, set_password
from tests.smtpdtree import SmtpTree, tcpserver

pytestmark = pytest.mark.root

MAIL = b"From: me@far.example\r\nSubject: a\r\n folded\r\n\r\nbody\r\n.dot\r\n"

GTUBE = (
    MAIL + b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
)


@pytest.fixture
def lib(open_tmp: Path) -> Libmilter:
    directory = open_tmp / "milters"
    directory.mkdir()
    directory.chmod(0o755)
    return Libmilter(directory)


@contextmanager
def serving(smtp: SmtpTree, kind: str) -> Iterator[int]:
    """The port of smtpd itself, or of qmail-smtpd under tcpserver."""
    smtp.start()
    if kind == "listener":
        yield smtp.port
        return
    with tcpserver(smtp) as port:
        yield port


def send(
    smtp: SmtpTree,
    text: bytes = MAIL,
    recips: tuple[str, ...] = ("box@here.example",),
    port: int | None = None,
) -> dict[str, tuple[int, bytes]]:
    with smtp.client(port) as client:
        return client.sendmail("me@far.example", recips, text)


def delivered(smtp: SmtpTree, recip: bytes = b"box@here.example") -> bytes:
    assert smtp.tree.reports(recip)[0].startswith(b"success")
    [path] = (smtp.tree.home / "alias/Maildir/new").iterdir()
    return path.read_bytes().partition(b"-0000\n")[2].partition(b"-0000\n")[2]


def as_it_came(text: bytes = MAIL) -> bytes:
    return text.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("kind", ["listener", "tcpserver"])
def test_filter_hears_everything_and_changes_everything(
    unstarted: SmtpTree, lib: Libmilter, kind: str
) -> None:
    unstarted.tree.control("milters", f"{lib.line}\n")
    unstarted.tree.alias("other", "./Maildir/\n")
    edits = [
        ["addheader", "X-Last", "1"],
        ["addheader", "X-First", "2\n folded", 0],
        ["chgheader", "Subject", 1, "b"],
        ["chgfrom", "<new@far.example>"],
        ["addrcpt", "<other@here.example>"],
        ["delrcpt", "<box@here.example>"],
    ]
    macros = ["i", "j", "{mail_addr}", "{client_addr}", "_"]
    with lib.run(edits=edits, macros=macros, upper=True):
        with serving(unstarted, kind) as port:
            send(unstarted, port=port)
            text = delivered(unstarted, b"other@here.example")
        heard = lib.heard()
    assert text == (
        b"X-First: 2\n folded\nFrom: me@far.example\nSubject: b\nX-Last: 1\n\n"
        b"BODY\n.DOT\n"
    )
    assert b"box@here.example" not in unstarted.tree.reported()
    end = next(each for each in heard if each[0] == "eom")
    assert re.fullmatch(r"[0-9a-f]+\.[0-9a-f]+\.[0-9a-f]+", end[1])
    assert end[2:] == [
        "here.example",
        "me@far.example",
        "127.0.0.1",
        "unknown [127.0.0.1]",
    ]
    assert heard[0][:3] == ["connect", "[127.0.0.1]", "127.0.0.1"]
    assert [each for each in heard if each[0] not in ("connect", "eom", "close")] == [
        ["helo", "c.example"],
        ["envfrom", "<me@far.example>", "SIZE=57"],
        ["envrcpt", "<box@here.example>"],
        ["data"],
        ["header", "From", "me@far.example"],
        ["header", "Subject", "a\n folded"],
        ["eoh"],
        ["body", 12],
    ]


@pytest.mark.parametrize("kind", ["listener", "tcpserver"])
def test_refusals_reach_the_client(
    unstarted: SmtpTree, lib: Libmilter, kind: str
) -> None:
    unstarted.tree.control("milters", f"{lib.line}\n")
    with serving(unstarted, kind) as port, ExitStack() as stack:
        for plan, want in (
            ({"connect": "reject"}, 550),
            ({"helo": ["554", "5.7.1", "no helo"]}, 554),
            ({"envfrom": "tempfail"}, 451),
            ({"envrcpt": ["450", "4.2.1", "one", "two 100%%"]}, 450),
            ({"data": "reject"}, 550),
            ({"header": "reject"}, 550),
            ({"eoh": "tempfail"}, 451),
            ({"body": "reject"}, 550),
            ({"eom": ["554", "5.7.1", "virus"]}, 554),
        ):
            with lib.run(**plan):
                code, said = refusal(unstarted, port)
            assert code == want, plan
            if "envrcpt" in plan:
                assert said == b"4.2.1 one\n4.2.1 two 100%"
        stack.close()
    assert unstarted.queued() == []


def refusal(smtp: SmtpTree, port: int, text: bytes = MAIL) -> tuple[int, bytes]:
    with smtp.client(port) as client:
        try:
            client.sendmail("me@far.example", ["box@here.example"], text)
        except smtplib.SMTPRecipientsRefused as exc:
            return exc.recipients["box@here.example"]
        except smtplib.SMTPResponseException as exc:
            error = exc.smtp_error
            return exc.smtp_code, error if isinstance(error, bytes) else error.encode()
    return 250, b""


def test_one_recipient_is_refused_and_the_other_gets_it(
    unstarted: SmtpTree, lib: Libmilter
) -> None:
    unstarted.tree.control("milters", f"{lib.line}\n")
    with lib.run(bad=["<bad@here.example>"]):
        unstarted.start()
        refused = send(unstarted, recips=("bad@here.example", "box@here.example"))
        assert list(refused) == ["bad@here.example"]
        assert delivered(unstarted) == as_it_came()


def test_discarded_mail_is_taken_and_gone(unstarted: SmtpTree, lib: Libmilter) -> None:
    unstarted.tree.control("milters", f"{lib.line}\n")
    with lib.run(eom="discard"):
        unstarted.start()
        send(unstarted)
        unstarted.tree.wait_for(re.escape(b": discards"))
    assert unstarted.queued() == []


@pytest.mark.parametrize("has_place", [False, True])
def test_quarantine(unstarted: SmtpTree, lib: Libmilter, has_place: bool) -> None:
    unstarted.tree.alias("jail", "./Maildir/\n")
    word = " quarantine=jail@here.example" if has_place else ""
    unstarted.tree.control("milters", f"{lib.line}{word}\n")
    with lib.run(edits=[["quarantine", "looks odd"]]):
        unstarted.start()
        if not has_place:
            assert refusal(unstarted, unstarted.port)[0] == 550
            return
        send(unstarted)
        assert delivered(unstarted, b"jail@here.example") == (
            b"X-Quarantine-Reason: looks odd\n"
            b"X-Quarantine-Recipient: box@here.example\n" + as_it_came()
        )


@pytest.mark.parametrize(
    ("word", "code"), [("", 451), ("tempfail", 451), ("reject", 550), ("accept", 250)]
)
def test_filter_that_is_down(
    unstarted: SmtpTree, lib: Libmilter, word: str, code: int
) -> None:
    unstarted.tree.control("milters", f"{lib.line} {word}\n")
    unstarted.start()
    assert refusal(unstarted, unstarted.port)[0] == code
    unstarted.tree.wait_for(
        re.escape(f"milter {lib.line}: No such file or directory".encode())
    )
    if code == 250:
        assert delivered(unstarted) == as_it_came()


def test_sessions_and_clients_share_a_connection(
    unstarted: SmtpTree, lib: Libmilter
) -> None:
    unstarted.tree.control("milters", f"{lib.line}\n")
    unstarted.tree.control("concurrencyremote", "1")
    with lib.run(envrcpt="continue"):
        unstarted.start()
        with unstarted.client() as client:
            for _ in range(3):
                client.sendmail("me@far.example", ["box@here.example"], MAIL)
        stages = lib.stages()
        assert stages.count("connect") == stages.count("helo") == 1
        assert stages.count("eom") == 3
        for _ in range(4):
            send(unstarted)
        # One listener may have more than one process, each with its own.
        assert lib.stages().count("close") >= 1


def test_filter_that_was_started_again_is_found(
    unstarted: SmtpTree, lib: Libmilter
) -> None:
    unstarted.tree.control("milters", f"{lib.line}\n")
    unstarted.start()
    with unstarted.client() as client:
        for _ in range(2):
            with lib.run():
                client.sendmail("me@far.example", ["box@here.example"], MAIL)
            lib.socket.unlink(missing_ok=True)


def test_one_signs_and_the_next_verifies(unstarted: SmtpTree, open_tmp: Path) -> None:
    dkim = Opendkim(open_tmp)
    with dkim.run("s") as signer, dkim.run("v") as verifier:
        unstarted.tree.control("milters", f"{signer}\n{verifier}\n")
        unstarted.start()
        send(unstarted)
        text = delivered(unstarted)
    assert text.endswith(as_it_came())
    assert b"\nDKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=far.example" in (
        b"\n" + text
    )
    assert re.search(rb"Authentication-Results: here\.example;\s+dkim=pass", text)


def test_rspamd_adds_a_field_and_refuses_gtube(
    unstarted: SmtpTree, open_tmp: Path
) -> None:
    directory = open_tmp / "rspamd"
    directory.mkdir()
    with rspamd(directory) as line:
        unstarted.tree.control("milters", f"{line}\n")
        unstarted.start()
        for _ in range(2):  # the second has the connection of the first
            assert refusal(unstarted, unstarted.port, GTUBE) == (
                554,
                b"5.7.1 Gtube pattern",
            )
        send(unstarted)
        text = delivered(unstarted)
    assert text.startswith(as_it_came().partition(b"\n\n")[0])
    assert b"\nX-Rspamd: seen\n" in text


def test_large_message_goes_through_a_file(unstarted: SmtpTree, lib: Libmilter) -> None:
    unstarted.tree.control("milters", f"{lib.line}\n")
    line = b"0123456789" * 7 + b"\r\n"
    big = b"Subject: big\r\n\r\n" + line * 30_000
    with lib.run(edits=[["addheader", "X-Seen", "yes"]]):
        unstarted.start()
        send(unstarted, big)
        seen = sum(each[1] for each in lib.heard() if each[0] == "body")
    assert seen == len(line) * 30_000
    assert delivered(unstarted) == as_it_came(big).replace(
        b"\n\n", b"\nX-Seen: yes\n\n", 1
    )
    assert list((unstarted.tree.home / "run/milter").iterdir()) == []


def test_filters_may_come_with_a_reload(unstarted: SmtpTree, lib: Libmilter) -> None:
    unstarted.start()
    send(unstarted)
    delivered(unstarted)
    with lib.run(eom=["554", "5.7.1", "no"]):
        unstarted.tree.control("milters", f"{lib.line}\n")
        unstarted.tree.run("reload")
        unstarted.tree.wait_for(re.escape(b"control/milters: starting again"))
        until_served(unstarted)
        assert refusal(unstarted, unstarted.port)[0] == 554


def until_served(smtp: SmtpTree) -> None:
    """Wait for smtpd to be back: the port is open all the time."""
    with socket.create_connection(("127.0.0.1", smtp.port), 60) as sock:
        assert sock.recv(100).startswith(b"220")


@pytest.mark.parametrize("word", ["submission", "smtp"])
def test_filters_of_some_listeners(
    unstarted: SmtpTree, lib: Libmilter, word: str
) -> None:
    unstarted.tree.control("milters", f"{lib.line} {word}\n")
    unstarted.rules('127.:allow,RELAYCLIENT=""\n')
    unstarted.start()
    with lib.run(eom="reject"):
        codes = [
            refusal(unstarted, port)[0]
            for port in (unstarted.port, unstarted.submission)
        ]
    assert codes == ([250, 550] if word == "submission" else [550, 250])
    assert os.path.exists(lib.log)


def test_filter_hears_who_has_logged_in(
    mailbox: str, unstarted: SmtpTree, lib: Libmilter
) -> None:
    set_password(mailbox)
    unstarted.tree.control("systemlogins", "1\n")
    unstarted.tree.control("milters", f"{lib.line}\n")
    with lib.run(macros=["{auth_authen}", "{auth_type}"]):
        unstarted.start()
        with unstarted.client(unstarted.submission) as client:
            client.starttls(context=unstarted.context())
            client.login(mailbox, PASSWORD)
            client.sendmail("me@far.example", ["box@here.example"], MAIL)
        heard = lib.heard()
    [eom] = [each for each in heard if each[0] == "eom"]
    assert eom[1] == mailbox


def test_filter_that_is_down_is_told_of_by_check(
    unstarted: SmtpTree, lib: Libmilter
) -> None:
    unstarted.tree.control("milters", f"{lib.line}\n")
    told = unstarted.tree.run("check", check=False)
    expected = f"control/milters: {lib.line.split()[0]}: No such file"
    assert (told.returncode, expected in told.stdout.decode()) == (1, True)


def test_filter_hears_of_tls(unstarted: SmtpTree, lib: Libmilter) -> None:
    unstarted.tree.control("milters", f"{lib.line}\n")
    unstarted.start()
    with lib.run(macros=["{tls_version}", "{cipher_bits}", "{auth_authen}"]):
        with unstarted.client() as client:
            client.starttls(context=unstarted.context())
            client.sendmail("me@far.example", ["box@here.example"], MAIL)
        heard = lib.heard()
    assert ["eom", "TLSv1.3", "256", None] in heard
    assert heard.count(["helo", "c.example"]) == 1
