"""Access rules of POP3, changed while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.pop.conftest import PopTree, Raw
from tests.tree.harness import until

pytestmark = pytest.mark.root


def greeted(pop: PopTree) -> bool:
    with Raw(pop.port) as raw:
        return raw.greeting.startswith(b"+OK ")


def compile_rules(cdb: Path, source: bytes) -> None:
    """As an operator who has tcprules does."""
    command = ["/usr/bin/tcprules", str(cdb), f"{cdb}.tmp"]
    subprocess.run(command, input=source, check=True)


def test_rules_are_in_force_with_the_next_connection(pop: PopTree) -> None:
    cdb = Path(pop.tree.home) / "control/tcp.pop3.cdb"
    assert greeted(pop)
    compile_rules(cdb, b"127.:deny\n")
    assert not greeted(pop)
    compile_rules(cdb, b"127.0.0.1:allow\n:deny\n")
    assert greeted(pop)
    cdb.unlink()
    assert not greeted(pop)
    pop.tree.wait_for(
        rb"warning: qmail-pop3d: 127\.0\.0\.1: control/tcp\.pop3\.cdb was removed"
    )
    pop.tree.signal(signal.SIGHUP)
    until(lambda: greeted(pop))


def test_rules_may_be_a_link_out_of_the_home(
    unstarted: PopTree, open_tmp: Path
) -> None:
    elsewhere = open_tmp / "tcp.pop3.cdb"
    compile_rules(elsewhere, b":deny\n")
    os.symlink(elsewhere, Path(unstarted.tree.home) / "control/tcp.pop3.cdb")
    unstarted.tree.start()
    assert not greeted(unstarted)
    compile_rules(elsewhere, b":allow\n")
    assert greeted(unstarted)
