"""Limits that others set: on one user's processes, on a whole tree, on its memory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.tree.harness import Tree
from tests.tree.homes import Account
from tests.tree.numbered import Bench, recover

pytestmark = pytest.mark.root

NPROC = 400
"""Of each account: more than those of all trees that tests run together."""
NO_THREAD = b"deferral: There_is_no_thread_to_be_had_now."
NO_PROGRAM = b"deferral: Unable_to_run_a_program:_Resource_temporarily_unavailable."
HOLD = """
import sys, threading
threading.stack_size(32768)
ended = threading.Event()
for _ in range(int(sys.argv[1]) - 1):
    threading.Thread(target=ended.wait).start()
print(flush=True)
sys.stdin.read()
ended.set()
"""


@contextmanager
def holding(account: Account, count: int) -> Iterator[None]:
    """So many processes of this account, as RLIMIT_NPROC counts them: threads too."""
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", HOLD, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    try:
        yield
    finally:
        process.communicate()


@pytest.mark.parametrize("left", [0, 2])
def test_user_without_processes_keeps_nobody_else_waiting(
    tree: Tree, account: Account, left: int
) -> None:
    bench = Bench(tree)
    account.maildir(tree)
    account.write(".qmail", "./Maildir/\n")
    account.write(".qmail-program", "|cat >seen\n")
    account.write(".qmail-mbox", "./Mailbox\n")
    plain, mbox, program = (
        f"{account.name}{more}@here.example".encode()
        for more in ("", "-mbox", "-program")
    )
    command = ["prlimit", f"--nproc={NPROC}", *tree.command("start")]
    tree.launch(command, until=b"status: local 0/")
    with holding(account, NPROC - left):
        for each in (plain, mbox, program):
            tree.send([each])
        bench.inject()
        # It takes neither thread nor process to write a Maildir.
        [by_maildir, by_mbox, by_program] = tree.reports(plain, mbox, program)
        assert by_maildir == b"success: did_1+0+0/"
        assert by_mbox.startswith(NO_THREAD) or left
        assert by_program.startswith((NO_THREAD, NO_PROGRAM) if left else NO_THREAD)
        recover(bench)
    tree.run("flush", "all")
    tree.wait_empty()
    assert (account.home / "seen").exists()
    assert (account.home / "Mailbox").stat().st_size
    for word in (b"alert", b"Traceback", b"crashed", b"is held"):
        assert word not in tree.log
    assert tree.stop() == 0
