"""Mail by the clients that people use, each as Debian has it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tests.smtpd.test_rules import PASSWORD, set_password
from tests.smtpdtree import SmtpTree, tcpserver

pytestmark = pytest.mark.root


def run(*command: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
    """Run a client to its end; all it says."""
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], **(env or {})},
    )
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said
    return said


def delivered(smtp: SmtpTree, count: int = 1) -> list[Message]:
    """The mail in the box, when all of it is there."""
    smtp.tree.wait_for(rb"end msg", count)
    found = list((smtp.tree.home / "alias/Maildir/new").iterdir())
    assert len(found) == count
    return [message_from_bytes(path.read_bytes()) for path in found]


def test_swaks_with_and_without_tls(unstarted: SmtpTree, mailbox: str) -> None:
    set_password(mailbox)
    unstarted.tree.control("systemlogins", "1\n")
    unstarted.start()
    port = str(unstarted.port)
    common = ("-f", "a@far.example", "-t", "box@here.example", "-s", "127.0.0.1")
    run("swaks", *common, "-p", port, "--body", ".dot\n..two\n\nend")
    login = ("-au", mailbox, "-ap", PASSWORD)
    submission = ("-p", str(unstarted.submission), "-tls")
    for mechanism in ("PLAIN", "LOGIN"):
        run("swaks", *common, *submission, *login, "-a", mechanism)
    secure = ("-p", str(unstarted.tls_port), "-tlsc")
    run("swaks", *common, *secure, *login, "-a", "PLAIN", "--pipeline")
    first, *others = sorted(
        delivered(unstarted, 4), key=lambda each: "dot" not in str(each.get_payload())
    )
    assert str(first.get_payload()).startswith(".dot\n..two\n\nend\n")
    for each in others:
        assert "with ESMTPSA" in "".join(each.get_all("Received", ()))


def test_curl_sends_files(smtp: SmtpTree, open_tmp: Path) -> None:
    path = open_tmp / "mail"
    path.write_bytes(b"Subject: curl\r\n\r\n" + b"line\r\n" * 50_000)
    for url in (
        f"smtp://127.0.0.1:{smtp.port}",
        f"smtp://127.0.0.1:{smtp.port}/here.example",
    ):
        run(
            "curl", "-sS", "--ssl-reqd", "-k", url, "--mail-from", "a@far.example",
            "--mail-rcpt", "box@here.example", "-T", str(path),
        )  # fmt: skip
    for message in delivered(smtp, 2):
        assert message["Subject"] == "curl"
        assert message.get_payload() == "line\n" * 50_000


def test_s_nail_and_mutt(smtp: SmtpTree, open_tmp: Path) -> None:
    home = {"HOME": str(open_tmp), "MAILRC": "/dev/null"}
    run(
        "s-nail", "-n", "-S", f"mta=smtp://127.0.0.1:{smtp.port}", "-S", "v15-compat",
        "-S", "smtp-auth=none", "-S", "from=a@far.example", "-S", "ttycharset=utf-8",
        "-s", "by s-nail \xe4", "box@here.example",
        stdin=b".\nvia smtp\n", env=home,
    )  # fmt: skip
    sendmail = smtp.tree.home / "bin/sendmail"
    run(
        "s-nail", "-n", "-S", f"mta={sendmail}", "-S", "from=a@far.example",
        "-s", "by sendmail", "box@here.example", stdin=b"x\n", env=home,
    )  # fmt: skip
    run(
        "mutt", "-n", "-F", "/dev/null", "-e", f"set sendmail='{sendmail} -oem -oi'",
        "-e", "set from=a@far.example", "-e", "unset record", "-s", "by mutt",
        "box@here.example", stdin=b".\nbody\n", env=home,
    )  # fmt: skip
    messages = {str(each["Subject"])[:6]: each for each in delivered(smtp, 3)}
    assert messages["by mut"].get_payload() == ".\nbody\n"


@pytest.mark.parametrize("kind", ["new", "kept", "tcpserver"])
def test_smtp_source_loses_nothing(smtp: SmtpTree, kind: str) -> None:
    count = 40 if kind == "tcpserver" else 300
    command = ["smtp-source", "-s", "10", "-m", str(count), "-l", "2048"]
    command += ["-d"] if kind == "kept" else []
    command += ["-f", "a@far.example", "-t", "box@here.example"]
    if kind == "tcpserver":
        with tcpserver(smtp) as port:
            run(*command, f"127.0.0.1:{port}")
    else:
        run(*command, f"127.0.0.1:{smtp.port}")
    bodies = [each["Message-Id"] for each in delivered(smtp, count)]
    assert len(set(bodies)) == count


def test_sendmail_bs_is_qmail_smtpd(smtp: SmtpTree) -> None:
    talk = (
        b"HELO x\r\nMAIL FROM:<a@far.example>\r\nRCPT TO:<box@here.example>\r\n"
        b"RCPT TO:<anybody@far.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"
    )
    done = smtp.tree.program("sendmail", "-bs", stdin=talk)
    codes = [int(line[:3]) for line in done.stdout.splitlines()]
    assert codes == [220, 250, 250, 250, 250, 354, 250, 221]
    assert done.returncode == 0
    smtp.tree.wait_for(rb"to remote anybody@far\.example\n")
