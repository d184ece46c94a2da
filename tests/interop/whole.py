"""Whole systems on one home: notqmail's, ours, and mixtures of both."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from tests.interop import notqmail
from tests.tree.harness import Tree
from tests.tree.outcomes import contents, trouble

SPAWNERS = ("qmail-lspawn", "qmail-rspawn", "qmail-clean")
DAEMONS = ("qmail-start", "qmail-send", *SPAWNERS)
BODY = b"Subject: test\n\nbody\n"
NAMES = (b"ok@here", b"a@good", b"no@here", b"a@bad", b"later@here", b"a@busy")
RECIPS = [each + b".example" for each in NAMES]
"""Both channels, and on each a success, a failure and a deferral."""
RUNNING = rb"(?m)^status: local 0/\d+ remote 0/\d+\n"


def start_theirs(
    tree: Tree, default: str = "./Mailbox", ours: Collection[str] = ()
) -> None:
    """Start notqmail's qmail-start on the home, as boot scripts do.

    It finds the programs named in `ours` among ours, all others among notqmail's.
    """
    mixed = tree.home / "mixed"
    shutil.rmtree(mixed, ignore_errors=True)
    mixed.mkdir()
    for name in (*DAEMONS, "qmail-remote"):
        ours_or_theirs = str(tree.home / "bin" / name)
        target = ours_or_theirs if name in ours else notqmail.program(name)
        (mixed / name).symlink_to(target)
    words = ["env", "-", f"PATH={mixed}:/usr/bin:/bin", "qmail-start", default]
    tree.launch(notqmail.on_home(tree.home, words), b"")
    tree.wait_for(RUNNING)


def start_ours(
    tree: Tree, default: str = "./Mailbox", theirs: Sequence[str] = ()
) -> None:
    """Start our tree on the home; those of SPAWNERS in `theirs` are notqmail's."""
    command = tree.command("start", "--default-delivery", default)
    for name in theirs:
        command += [f"--{name.removeprefix('qmail-')}", notqmail.program(name)]
    tree.launch(notqmail.on_home(tree.home, command), b"")
    tree.wait_for(RUNNING)


def queue_by_theirs(
    tree: Tree,
    recips: Sequence[bytes],
    message: bytes = b"Subject: test\n\nbody\n",
    sender: bytes = b"me@elsewhere.example",
    uid: int = 0,
) -> int:
    """Inject by notqmail's qmail-queue; its pid."""
    ids = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    command = [*ids, notqmail.program("qmail-queue")]
    return tree.queue(
        recips, message, sender, command=notqmail.on_home(tree.home, command)
    )


def output_of_theirs(tree: Tree, name: str, *args: str) -> bytes:
    """What one of notqmail's programs prints as root."""
    command = notqmail.on_home(tree.home, [notqmail.program(name), *args])
    return tree.call(command).stdout


def keep_their_queue_program(tree: Tree) -> None:
    """bin/qmail-queue of the home is notqmail's, as where ours is not yet set up."""
    path = tree.home / "bin/qmail-queue"
    path.unlink()
    shutil.copy(notqmail.HOME / "bin/qmail-queue", path)
    os.chown(path, (notqmail.HOME / "bin/qmail-queue").stat().st_uid, -1)
    path.chmod(0o4711)


def files(tree: Tree) -> list[Path]:
    """Every file of a message in the queue, by its name there."""
    return sorted(each.relative_to(tree.home / "queue") for each in tree.queue_files())


def check_first_attempts(tree: Tree) -> None:
    """The reports on RECIPS."""
    ok, good, no, bad, later, busy = tree.reports(*RECIPS)
    assert (ok, no, later) == (
        b"success: did_1+0+0/", b"failure: no//such", b"deferral: later/",
    )  # fmt: skip
    assert good == b"success: 127.0.0.1_accepted_message./Remote_host_said:_250_ok/"
    assert bad == (
        b"failure: 127.0.0.1_does_not_like_recipient./Remote_host_said:_550_unknown/"
        b"Giving_up_on_127.0.0.1./"
    )
    assert busy == (
        b"deferral: Connected_to_127.0.0.1_but_sender_was_rejected."
        b"/Remote_host_said:_451_busy/"
    )


def check_the_end(tree: Tree) -> None:
    """What RECIPS and the bounce left behind, when all is over."""
    assert tree.stop() == 0
    assert files(tree) == []
    assert trouble(tree) == []
    first, second = contents(tree, "Maildir")
    assert {
        re.findall(rb"(?m)^Delivered-To: (.*)", each)[0] for each in (first, second)
    } == {b"ok@here.example", b"later@here.example"}
    [bounce] = contents(tree, "returned")
    assert b"Return-Path: <>\nDelivered-To: me-@here.example\n" in bounce
    assert b"\n\n<no@here.example>:\nno\n/such\n\n" in bounce
    assert b"\n\n<a@bad.example>:\n127.0.0.1 does not like recipient.\n" in bounce
    assert b"\n\n--- Below this line is a copy of the message.\n\n" in bounce
    assert bounce.endswith(BODY)
