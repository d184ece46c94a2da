"""Ten thousand messages by SMTP while the queue manager delivers them."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.smtpdtree import SmtpTree

pytestmark = [pytest.mark.root, pytest.mark.serial]

COUNT = 10_000
LIMIT_S = 180


def test_each_of_ten_thousand_arrives_once(unstarted: SmtpTree) -> None:
    smtp = unstarted
    smtp.tree.alias("default", "./Maildir/\n")
    smtp.start()
    # -N: each recipient begins with a number of its own.
    client = subprocess.Popen(
        [
            "smtp-source", "-N", "-s", "10", "-m", str(COUNT), "-l", "2048",
            "-f", "a@far.example", "-t", "box@here.example", f"127.0.0.1:{smtp.port}",
        ],
    )  # fmt: skip
    try:
        # Reads the log, which would stop the tree when it is full.
        smtp.tree.wait_for(rb"end msg", COUNT)
        assert client.wait(LIMIT_S) == 0
    finally:
        client.kill()
        client.wait()
    smtp.tree.wait_empty()
    found = sorted(
        match[1]
        for path in (smtp.tree.home / "alias/Maildir/new").iterdir()
        if (match := re.search(rb"\nDelivered-To: (\S+)\n", path.read_bytes()))
    )
    assert len(found) == COUNT
    assert len(set(found)) == COUNT
