"""POP3 of a running tree, by a real client and by hostile ones."""

from __future__ import annotations

import poplib
import re
from pathlib import Path

import pytest

from tests.pop.conftest import PASSWORD, PopTree

pytestmark = pytest.mark.root


def test_delivered_mail_is_fetched_and_removed(
    pop: PopTree, mailbox: str, open_tmp: Path
) -> None:
    recip = f"{mailbox}@here.example".encode()
    pop.tree.send([recip], b"Subject: hello\n\n.dot\nend\n")
    assert pop.tree.reports(recip)[0].startswith(b"success")
    with pop.session(mailbox) as client:
        count, size = client.stat()
        assert count == 1
        _, lines, _ = client.retr(1)
        assert lines[-4:] == [b"Subject: hello", b"", b".dot", b"end"] or (
            b".dot" in lines and lines[-1] == b"end"
        )
        [stored] = (open_tmp / mailbox / "Maildir/new").iterdir()
        assert size == stored.stat().st_size
        client.dele(1)
        client.quit()
    assert not list((open_tmp / mailbox).rglob("Maildir/*/*"))
    pop.tree.find(
        rb"(?m)^login: %b from 127\.0\.0\.1: accepted \(account\)$" % mailbox.encode()
    )
    assert PASSWORD.encode() not in pop.tree.log


def test_wrong_passwords_are_refused_and_the_log_says_why(
    pop: PopTree, mailbox: str
) -> None:
    with pop.client() as client:
        for name, secret in ((mailbox, "wrong"), ("no-such-user", "x")):
            client.user(name)
            with pytest.raises(poplib.error_proto, match=r"-ERR \[AUTH\]"):
                client.pass_(secret)
        client.user(mailbox)
        client.encoding = "UTF-8"
        client.pass_(PASSWORD)
        client.quit()
    shown = re.escape(mailbox).encode()
    pop.tree.find(rb"(?m)^login: %b from 127.0.0.1: refused: wrong password$" % shown)
    pop.tree.find(rb"(?m)^login: no-such-user from 127.0.0.1: refused: unknown user")
