"""Without root: everything works, all of it is one user, and stays in one place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from qsend.formats.layout import ENTRIES
from qsend.sysio import sandbox
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree import procview
from tests.tree.harness import Installation, Tree

pytestmark = pytest.mark.root

USER, OTHER = 64961, 64962
ELSEWHERE = ("/", "/tmp", "/var/tmp", "/dev/shm", "/run", "/var/mail", "/var/spool")


@pytest.fixture
def own_tree(installation: Installation, open_tmp: Path) -> Iterator[Tree]:
    """A tree of a uid that no other test has."""
    with Tree(installation, open_tmp / "home", uid=USER) as made:
        yield made


def owned_elsewhere(home: Path) -> set[str]:
    """What the user has in the places where everybody may write."""
    found = set()
    for place in ELSEWHERE:
        for name in os.listdir(place):
            path = os.path.join(place, name)
            try:
                if os.lstat(path).st_uid == USER and path != str(home):
                    found.add(path)
            except FileNotFoundError:
                continue
    return found


def test_everything_works_as_one_user_in_one_place(own_tree: Tree) -> None:
    tree = own_tree
    before = owned_elsewhere(tree.home)
    with Peer(LOCKSTEP | {"RCPT": [b"450 later", b"250 r"]}) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        os.chown(tree.home / "control/smtproutes", USER, USER)
        maildir = tree.maildir()
        tree.alias("program", "|id -u; id -G\n")
        tree.alias("forward", "&postmaster@here.example\n")
        tree.start("--default-delivery", "./Maildir/")
        recips = [
            name + b"@here.example" for name in (b"postmaster", b"program", b"forward")
        ]
        tree.queue([*recips, b"far@far.example"], sender=b"postmaster@here.example")
        plain, program, forward, far = tree.reports(*recips, b"far@far.example")
        assert plain == b"success: did_1+0+0/"
        assert program == b"success: %d/%d/did_0+0+1/" % (USER, USER)
        assert forward.startswith(b"success: did_0+1+0/qp_")
        assert far.startswith(b"deferral: ")
        told = json.loads(tree.run("queue", "--json").stdout)
        assert "far@far.example" in json.dumps(told)
        tree.run("flush")
        tree.wait_for(rb"success: 127\.0\.0\.1_accepted_message")
        # One who is not the user may inject, and cannot do more.
        tree.queue([b"nobody-here@here.example"], uid=OTHER, sender=recips[0])
        tree.wait_for(rb"bounce msg \d+ qp \d+\n")
        tree.wait_for(rb"end msg \d+\n", count=2)
        refused = tree.program("qsend", "status", uid=OTHER)
        assert refused.returncode != 0
        assert tree.run("check").stdout.endswith(b"all is well\n")

        found = procview.family(tree)
        assert len(found) == 8
        group = str(USER)
        for role, those in found.items():
            for each in those:
                assert each.ids == ({str(USER)}, {group}, []), role
                assert int(each.status["CapEff"][0], 16) == 0
                assert not each.dumpable, role
                is_confined = role in ("queue", "clean", "send", "lookup", "remote")
                if "seccomp" in sandbox.features():
                    assert each.status["Seccomp"] == ["2" if is_confined else "0"]
                inet = psutil.Process(each.pid).net_connections("inet")
                assert psutil.CONN_LISTEN not in {each.status for each in inet}
        assert tree.stop() == 0
    assert len(list((maildir / "new").iterdir())) == 3
    assert not tree.queue_files()
    assert owned_elsewhere(tree.home) == before
    for path in (tree.home, *tree.home.rglob("*")):
        assert path.lstat().st_uid == USER, path
    for entry in ENTRIES:
        for name in entry.paths():
            assert (tree.home / "queue" / name).stat().st_mode & 0o7777 == entry.mode


def test_user_cannot_start_or_check_anothers_tree(own_tree: Tree) -> None:
    for name in ("start", "check"):
        done = own_tree.call(own_tree.command(name), uid=OTHER, check=False)
        assert done.returncode in (100, 111), name
        assert done.stdout or done.stderr
    assert not (own_tree.home / "run/enqueue.sock").exists()
