"""Programs in the place of qmail-queue, and what they say on descriptor 6."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.smtpdtree import SmtpTree, tcpserver

pytestmark = pytest.mark.root


@pytest.fixture
def program(smtp: SmtpTree, open_tmp: Path) -> Path:
    """A script that rules name as QMAILQUEUE, for qmail-smtpd below tcpserver."""
    path = open_tmp / "program"
    smtp.rules(f':allow,QMAILQUEUE="{path}"\n')
    return path


@pytest.fixture
def port(smtp: SmtpTree, program: Path) -> Iterator[int]:
    with tcpserver(smtp, "-x", str(smtp.tree.home / "control/tcp.smtp.cdb")) as port:
        yield port


def put(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def answer(smtp: SmtpTree, port: int) -> tuple[int, bytes]:
    with smtp.client(port) as client:
        client.mail("me@far.example")
        client.rcpt("box@here.example")
        return client.data(b"Subject: x\r\n\r\n" + b"x\r\n" * 100_000)


@pytest.mark.parametrize(
    ("script", "want"),
    [
        ("cat >/dev/null; echo -n 'Dno viruses (#5.7.1)' >&6; exit 82",
         (554, b"5.7.1 no viruses (#5.7.1)")),
        ("echo -n 'Zbusy (#4.3.2)' >&6; exit 82", (451, b"4.3.2 busy (#4.3.2)")),
        ("printf 'Dtwo\\r\\n250 lines' >&6; exit 82", (554, b"two  250 lines")),
        ("printf D%0999d 0 >&6; exit 82", (554, b"0" * 254)),
        ("echo -n D >&6; exit 82", (451, b"4.3.0 qq temporary problem (#4.3.0)")),
        ("echo -n 'Xwhat' >&6; exit 82", (451, b"4.3.0 qq temporary problem (#4.3.0)")),
        ("exit 82", (451, b"4.3.0 qq temporary problem (#4.3.0)")),
        ("echo -n 'Dignored' >&6; exit 31",
         (554, b"5.3.0 mail server permanently rejected message (#5.3.0)")),
        ("echo -n 'Dignored' >&6; exit 53",
         (451, b"4.3.0 qq write error or disk full (#4.3.0)")),
        ("kill -9 $$", (451, b"4.3.0 qq crashed (#4.3.0)")),
    ],
)  # fmt: skip
def test_reply_is_what_the_program_says(
    smtp: SmtpTree, port: int, program: Path, script: str, want: tuple[int, bytes]
) -> None:
    put(program, script)
    assert answer(smtp, port) == want


def test_program_may_change_the_message_and_queue_it(
    smtp: SmtpTree, port: int, program: Path
) -> None:
    queue = smtp.tree.home / "bin/qmail-queue"
    put(program, f"unset QMAILQUEUE; (echo X-Seen: yes; cat) | {queue} <&0")
    code, said = answer(smtp, port)
    assert (code, said[:9]) == (250, b"2.0.0 ok ")
    assert smtp.tree.reports(b"box@here.example")[0].startswith(b"success")
    [path] = (smtp.tree.home / "alias/Maildir/new").iterdir()
    assert b"\nX-Seen: yes\nReceived: " in path.read_bytes()


def test_service_turns_away_whom_it_cannot_serve(smtp: SmtpTree, program: Path) -> None:
    with smtp.raw() as raw:
        assert raw.greeting.startswith(b"421 ")
    smtp.tree.find(rb"QMAILQUEUE needs bin/qmail-smtpd")
