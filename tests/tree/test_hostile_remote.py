"""Code that has taken over a remote process gets nowhere, and its work goes on."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from qsend.sysio import sandbox
from tests.mariadb import Database
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        len(sandbox.features()) < 2, reason="needs both Landlock and seccomp"
    ),
]

HOSTILE = Path(__file__).with_name("hostile_remote.py").read_text()
REFUSED = {b"EACCES", b"EPERM"}


def test_broken_in_remote_gets_nowhere(tree: Tree, database: Database) -> None:
    with Peer(LOCKSTEP | {"RCPT": [b"450 later", b"250 r"]}) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.control("sqlserver", database.sqlserver.decode())
        tree.start(patch=f"import os\nos.environ['HOSTALIASES'] = '/x'\n{HOSTILE}")
        tree.queue([b"first@far.example"])
        assert tree.reports(b"first@far.example")[0].startswith(b"deferral")
        (tree.home / "run/hostile").touch()
        victim, _ = tree.pids("qmail-remote")
        os.kill(victim, signal.SIGKILL)
        count = int(tree.wait_for(rb"probes: (\d+)\n")[1])
        answers = dict(re.findall(rb"probe: (.*): (\w+)\n", tree.log))
        assert len(answers) == count > 200
        assert answers.pop(b"getenv") == b"ENOENT"
        # No SEQPACKET socket can be reached from one of another type.
        for name in (b"control.sock", b"enqueue.sock", b"lookup.sock"):
            assert answers.pop(b"pair to " + name) in (REFUSED | {b"EPROTOTYPE"})
        got = {what for what, answer in answers.items() if answer not in REFUSED}
        assert not got
        for role in (b"start", b"send", b"clean", b"queue", b"lspawn", b"remote"):
            title = role if role == b"start" else b"qmail-" + role
            assert answers[b"kill " + title] == b"EPERM"
            assert answers[b"open mem of " + title] == b"EACCES"
        # Both remotes are hostile now, and still have nothing but their work.
        os.kill(next(p for p in tree.pids("qmail-remote")), signal.SIGKILL)
        tree.wait_for(rb"probes: \d+\n")
        tree.signal(signal.SIGALRM)
        tree.queue([b"second@far.example"])
        tree.wait_for(rb"end msg \d+\n", count=2)
        assert tree.stop() == 0
    assert sum(len(each.contents) for each in peer.served) == 2
