"""qmail-start as boot scripts run it: default delivery, logger, descriptors, codes."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import subprocess
from collections.abc import Sequence

import pytest

from qsend.sysio import clock
from tests.tree.harness import WAIT_S, Tree

# A logger that says who it is and what it has, then passes the log on.
LOGGER = (
    'echo "ids $(id -u) $(id -g) $(id -G) in $(pwd) with $TOKEN"; '
    'fds=; for n in 0 1 2 3 4 5 6 7; do [ -e /proc/$$/fd/$n ] && fds="$fds $n"; done; '
    "echo fds $fds; "
    "exec sed -u 's/^/log: /'"
)


def start_by(tree: Tree, command: Sequence[str], path: str = "/nonexistent") -> None:
    """As Tree.start, by another command, which finds programs in `path` as well."""
    tree.kill(strays=False)
    tree.process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/tmp",
        start_new_session=True,
        env={"PATH": f"{path}:{os.environ['PATH']}", "TOKEN": "word"},
        user=tree.uid,
        group=tree.uid,
        extra_groups=[],
    )


def start(tree: Tree, *args: str) -> None:
    """As Tree.start, by bin/qmail-start."""
    start_by(tree, [str(tree.home / "bin/qmail-start"), *args])


@pytest.mark.root
def test_logger_runs_as_qmaill_with_two_descriptors(tree: Tree) -> None:
    box = tree.maildir("Box")
    start(tree, "./Box/", "sh", "-c", LOGGER)
    ids = tree.wait_for(rb"(?m)^ids (\d+) (\d+) ([\d ]+) in (\S+) with (\w+)$")
    gid = b"%d" % grp.getgrnam("nofiles").gr_gid
    uid = b"%d" % pwd.getpwnam("qmaill").pw_uid
    assert ids.groups() == (uid, gid, gid, b"/", b"word")
    assert tree.wait_for(rb"(?m)^fds (.*)$")[1].split() == [b"0", b"1"]
    tree.wait_for(rb"log: status: local 0/10 remote 0/20\n")
    tree.send([b"postmaster@here.example"])
    tree.wait_for(rb"log: end msg")
    assert len(list((box / "new").iterdir())) == 1
    # Its end is that of the logger, too, through which all of the log came.
    assert tree.stop() == 0
    assert tree.log.splitlines()[-1].startswith(b"log: status: ")
    assert all(
        line.startswith((b"log: ", b"ids ", b"fds ")) for line in tree.log.splitlines()
    )


def test_without_arguments_mail_goes_to_mailbox_and_the_log_to_1(
    user_tree: Tree,
) -> None:
    start(user_tree)
    user_tree.wait_for(rb"(?m)^status: local 0/10 remote 0/20\n")
    user_tree.send([b"postmaster@here.example"])
    user_tree.wait_for(rb"(?m)^end msg")
    assert b"Subject: test\n" in (user_tree.home / "alias/Mailbox").read_bytes()
    for signum, said in (
        (signal.SIGHUP, rb"reread controls: generation 2\n"),
        (signal.SIGTERM, rb"status: exiting\n"),
    ):
        user_tree.signal(signum)
        user_tree.wait_for(said)
    assert user_tree.wait() == 0


def test_default_delivery_of_several_lines(user_tree: Tree) -> None:
    for name in ("One", "Two"):
        user_tree.maildir(name)
    start(user_tree, "./One/\n# a comment\n./Two/")
    user_tree.wait_for(b"status: local 0/")
    user_tree.send([b"postmaster@here.example"])
    assert user_tree.reports(b"postmaster@here.example") == [b"success: did_2+0+0/"]
    assert user_tree.stop() == 0


def test_without_me_and_locals_it_says_so_and_ends_with_111(user_tree: Tree) -> None:
    for name in ("me", "locals"):
        user_tree.control(name, None)
    start(user_tree)
    assert user_tree.wait() == 111
    assert user_tree.log.startswith(b"alert: cannot start: control/me: missing")


def test_with_locals_alone_it_runs(user_tree: Tree) -> None:
    user_tree.control("me", None)
    start(user_tree)
    user_tree.wait_for(b"status: local 0/")
    assert user_tree.stop() == 0


def test_logger_that_cannot_be_run_loses_the_log_but_no_mail(user_tree: Tree) -> None:
    start(user_tree, "./Mailbox", "no-such-logger", "x")
    user_tree.wait_for(b"cannot run the logger no-such-logger: ")
    user_tree.send([b"postmaster@here.example"])
    box = user_tree.home / "alias/Mailbox"
    deadline_mono = clock.mono() + WAIT_S
    while not box.exists() and clock.mono() < deadline_mono:
        user_tree.run("status", check=False)
    assert box.exists()
    assert user_tree.stop() == 0
