"""SMTP reception of a running tree, by real clients."""

from __future__ import annotations

import re

import pytest

from tests.smtpdtree import SmtpTree

pytestmark = pytest.mark.root


def test_mail_is_taken_and_delivered(smtp: SmtpTree) -> None:
    with smtp.client() as client:
        refused = client.sendmail(
            "me@far.example", ["box@here.example"], b"Subject: x\r\n\r\n.dot\r\nend\r\n"
        )
        assert not refused
    assert smtp.tree.reports(b"box@here.example")[0].startswith(b"success")
    [path] = (smtp.tree.home / "alias/Maildir/new").iterdir()
    text = path.read_bytes()
    assert text.endswith(b"\nSubject: x\n\n.dot\nend\n")
    assert re.search(
        rb"Received: from unknown \(HELO c\.example\) \(127\.0\.0\.1\)\n"
        rb"  by here\.example with ESMTP; \d+ \w+ \d{4} [0-9:]{8} -0000\n",
        text,
    )
