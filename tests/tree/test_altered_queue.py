"""Files of queued messages with something else in their place: each stops its message
at most, is named once in a while, and others go on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qsend.core.model import Channel, MessId
from qsend.formats import paths
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree
from tests.tree.numbered import cpu_s, drain

pytestmark = pytest.mark.root

LINES_MAX = 20
"""Of each altered message in all: several attempts with their lines."""
CPU_S = 0.5
"""Of the whole tree in a second in which there is nothing to do."""


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _another(path: Path) -> None:
    os.chown(path, 0, 0)
    path.chmod(0o600)


HARMS: tuple[Callable[[Path], None], ...] = (_directory, _fifo, _link, _another)


def places(messid: MessId) -> tuple[str, ...]:
    return (
        paths.info(messid),
        paths.recips(Channel.REMOTE, messid),
        paths.mess(messid),
        f"bounce/{messid}",
    )


def test_what_is_no_file_of_ours_stops_its_message_at_most(tree: Tree) -> None:
    queue = tree.home / "queue"
    tree.alias("box", "./Maildir/\n")
    maildir = tree.maildir()
    count = len(HARMS) * 4
    later = LOCKSTEP | {"MAIL": [*([b"451 no"] * (count + 1)), b"250 s"]}
    with Peer(later) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start()
        messids = []
        for _ in range(count + 1):
            tree.queue([b"far@x.example", b"nobody@here.example"])
            messids.append(MessId(tree.new_messid()))
            tree.wait_for(rb"delivery \d+: deferral: Connected")
        *altered, whole = messids
        assert tree.stop() == 0
        for at, messid in enumerate(altered):
            path = queue / places(messid)[at % 4]
            assert path.is_file()
            HARMS[at // 4](path)
        for name in ("todo/core", "info/0/.swp", "mess/0/x", "local/3/9999999x"):
            (queue / name).write_text("foreign")
        (queue / "todo/7").mkdir()
        mark = len(tree.log)
        tree.start()
        [send] = tree.pids("qmail-send")
        for _ in range(3):
            tree.run("flush", "all")
            drain(tree, 0.5)
        tree.queue([b"box@here.example"])
        tree.wait_for(rb"success: did_1\+0\+0/")
        tree.find(rb"end msg %d\n" % whole)
        began_cpu_s = cpu_s(tree)
        drain(tree, 1.0)
        assert cpu_s(tree) - began_cpu_s < CPU_S
        log = tree.log[mark:]
        for messid in altered:
            assert log.count(b"%d" % messid) <= LINES_MAX, messid
        assert tree.pids("qmail-send") == [send]
        assert b"Traceback" not in log
        assert b"lost " not in log
        assert tree.ask("queue") is not None
        assert len(list((maildir / "new").iterdir())) == 1
        assert tree.stop() == 0
    for name in ("todo/core", "info/0/.swp", "mess/0/x", "local/3/9999999x"):
        assert (queue / name).read_text() == "foreign"
