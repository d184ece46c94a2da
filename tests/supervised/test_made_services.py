"""The service directories that `qsend setup --supervise daemontools` makes, running."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemontools import Services
from tests.pop.conftest import PASSWORD, mailbox
from tests.supervised.test_howto_scripts import send
from tests.tree.harness import HOST, Tree

__all__ = ["mailbox"]
pytestmark = pytest.mark.root

POP_CLIENT = """\
import poplib, sys
pop = poplib.POP3("127.0.0.1", 110, timeout=60)
pop.encoding = "UTF-8"
pop.user(sys.argv[1])
pop.pass_(sys.argv[2])
print(pop.stat()[0], len(pop.retr(1)[1]))
pop.quit()
"""


@pytest.fixture
def made(mailbox: str, tree: Tree, open_tmp: Path) -> Iterator[Services]:
    """All of them, linked and up; logs are below the directory of the test."""
    words = ("--supervise", "daemontools", "--logs", str(open_tmp / "logs"))
    tree.run("setup", "--me", HOST, *words)
    with Services(open_tmp / "service", (open_tmp / "stage", tree.home)) as services:
        for service in sorted((tree.home / "supervise").iterdir()):
            services.link(str(service))
            services.wait_stat(service.name, rb": up \(pid ")
        services.wait_log(f"{open_tmp}/logs/qmail-send", rb"status: local 0/10 ")
        for name in ("qmail-smtpd", "qmail-pop3d"):
            services.wait_log(f"{open_tmp}/logs/{name}", rb"tcpserver: status: 0/40\n")
        yield services


def test_mail_comes_by_smtp_and_is_read_by_pop3(
    made: Services, mailbox: str, tree: Tree, open_tmp: Path
) -> None:
    # A megabyte, within the limits of both.
    assert send(made, "127.0.0.1", f"{mailbox}@here.example", 15000) == (0, b"{}\n")
    log = made.wait_log(f"{open_tmp}/logs/qmail-send", rb"end msg \d+\n")
    assert re.search(rb"(?m)^delivery 1: success: did_1\+0\+0/$", log)
    client = [sys.executable, "-c", POP_CLIENT, mailbox, PASSWORD]
    count, lines = made.run(*client).stdout.split()
    assert count == b"1"
    assert int(lines) > 3
    # Wrong passwords are none of the limit's doing.
    assert made.run(*client[:-1], "wrong", check=False).returncode == 1
    # Nobody may relay before the operator says who.
    assert send(made, "127.0.0.1", "a@far.example")[0] == 1
    # `qsend stop` is a restart without a gap: supervise brings it up again.
    pid = made.wait_stat("qmail-send", rb"\(pid (\d+)\)")[1]
    tree.run("stop")
    assert send(made, "127.0.0.1", f"{mailbox}@here.example") == (0, b"{}\n")
    made.wait_log(f"{open_tmp}/logs/qmail-send", rb"end msg \d+\n", 2)
    assert made.wait_stat("qmail-send", rb": up \(pid (\d+)\)")[1] != pid
