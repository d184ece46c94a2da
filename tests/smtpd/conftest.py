"""Fixtures of trees that take mail by SMTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pop.conftest import mailbox, pem
from tests.ports import free_ports
from tests.smtpdtree import SmtpTree, set_up, tcpserver
from tests.tree.conftest import installation, login
from tests.tree.harness import Installation, Tree

__all__ = ["installation", "login", "mailbox", "pem"]


@pytest.fixture
def unstarted(
    installation: Installation, open_tmp: Path, pem: tuple[Path, bytes]
) -> Iterator[SmtpTree]:
    """The tree, set up and not started; mail for box@here.example is kept."""
    with Tree(installation, open_tmp / "home") as tree:
        made = set_up(tree, pem, free_ports(3))
        tree.maildir()
        tree.alias("box", "./Maildir/\n")
        yield made


@pytest.fixture(params=["listener", "tcpserver"])
def both(
    request: pytest.FixtureRequest, unstarted: SmtpTree
) -> Iterator[tuple[SmtpTree, int]]:
    """The tree, running, and a port: smtpd's own, or that of qmail-smtpd."""
    unstarted.start()
    if request.param == "listener":
        yield unstarted, unstarted.port
        return
    with tcpserver(unstarted) as port:
        yield unstarted, port


@pytest.fixture
def smtp(unstarted: SmtpTree) -> SmtpTree:
    """The tree, running."""
    unstarted.start()
    return unstarted
