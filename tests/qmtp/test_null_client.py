"""A machine without a queue hands its mail to qmqpd by qmail-qmqpc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.qmqpserver import closed_port
from tests.qmtp.conftest import QmtpTree
from tests.tree.harness import Tree

pytestmark = pytest.mark.root

BOX = b"box@here.example"


@pytest.fixture
def null(served: QmtpTree, open_tmp: Path) -> Tree:
    """A home in which nothing runs."""
    made = Tree(served.tree.installation, open_tmp / "null")
    made.control("qmqpservers", f"127.0.0.1:{closed_port()}\nlocalhost:{served.qmqp}\n")
    link = made.home / "bin/qmail-queue"
    link.unlink()
    link.symlink_to("qmail-qmqpc")
    return made


@pytest.mark.parametrize("uid", [0, 64901])
def test_everything_that_injects_hands_on(
    served: QmtpTree, null: Tree, uid: int
) -> None:
    null.send([BOX], b"Subject: injected\n\nx\n", uid=uid)
    args = ("-fme@null.example", os.fsdecode(BOX))
    message = b"Subject: by sendmail\n\nx\n"
    assert null.program("sendmail", *args, stdin=message, uid=uid).returncode == 0
    null.queue([BOX], b"Subject: queued\n\nx\n", uid=uid)
    served.tree.wait_for(rb"end msg", 3)
    subjects = sorted(
        line
        for kept in served.kept()
        for line in kept.splitlines()
        if line.startswith(b"Subject")
    )
    assert subjects == [
        b"Subject: by sendmail",
        b"Subject: injected",
        b"Subject: queued",
    ]
    for kept in served.kept():
        assert kept.count(b" with QMQP; ") == 1
    assert null.queue_files() == []


def test_refusal_is_that_of_the_server(served: QmtpTree, null: Tree) -> None:
    program = str(null.home / "bin/qmail-inject")
    long = b"x" * 997 + b"@h.e"
    done = null.call(
        [program, "-f", "a@b", os.fsdecode(long)], stdin=b"\nx\n", check=False
    )
    assert done.returncode == 100
    assert b"(#5.3.0)" in done.stderr
    assert served.queued() == []


def test_without_a_server_mail_is_deferred_not_lost(
    served: QmtpTree, null: Tree
) -> None:
    served.tree.stop()
    done = null.program("qmail-inject", "-a", "--", "a@b.example", stdin=b"\nx\n")
    assert done.returncode == 111
    assert b"(#4.4.1)" in done.stderr


def test_setup_leaves_the_link(null: Tree) -> None:
    null.run("setup", "--me", "null.example")
    link = null.home / "bin/qmail-queue"
    assert os.readlink(link) == "qmail-qmqpc"
    link.unlink()
    null.run("setup", "--me", "null.example")
    assert not link.is_symlink()
    assert link.exists()
