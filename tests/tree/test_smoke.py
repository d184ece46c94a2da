"""The shortest proof that a whole tree works."""

from __future__ import annotations

import mailbox

import pytest

from tests.tree.harness import Tree


@pytest.mark.root
@pytest.mark.parametrize("kind", ["tree", "user_tree"])
def test_message_ends_in_the_maildir(kind: str, request: pytest.FixtureRequest) -> None:
    tree: Tree = request.getfixturevalue(kind)
    maildir = tree.maildir()
    tree.start("--default-delivery", "./Maildir/")
    tree.send([b"postmaster@here.example"], uid=64901)
    tree.wait_for(rb"end msg \d+\n")
    [message] = mailbox.Maildir(maildir)
    assert message["Delivered-To"] == "postmaster@here.example"
    assert "invoked by uid 64901" in message["Received"]
    assert tree.stop() == 0
    assert not tree.queue_files()
    assert tree.log.endswith(b"status: exiting\n")
