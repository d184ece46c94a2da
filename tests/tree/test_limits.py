"""Limits that others set: on one user's processes, on a whole tree, on its memory."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.torture import kills, world
from tests.torture.ledger import Ledger, Log, follow
from tests.tree.cgroups import Group, own_group
from tests.tree.harness import Installation, Tree
from tests.tree.homes import Account
from tests.tree.numbered import Bench, drain, recover

pytestmark = pytest.mark.root

NPROC = 400
"""Of each account: more than those of all trees that tests run together."""
NO_THREAD = b"deferral: There_is_no_thread_to_be_had_now."
NO_MORE = b"Resource temporarily unavailable\n"
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


MIB = 1 << 20
WORK_S = 3.0
"""How long a tree works under each limit."""
EACH = 3
"""Messages that come by each entrance meanwhile."""
ENDS = EACH * len(world.ENTRANCES)
Prefix = Sequence[str]


def by_softlimit(_group: None) -> Iterator[Prefix]:
    """What a tree may map; 64 MiB is about what start alone takes."""
    for mib in (40, 56, 66, 80):
        yield ["softlimit", "-m", str(mib * MIB)]


def by_nofile(_group: None) -> Iterator[Prefix]:
    """LimitNOFILE; send alone keeps about a hundred directories open."""
    for count in (8, 30, 60, 200):
        yield ["prlimit", f"--nofile={count}:{count}"]


def _inside(group: Group, limit: Callable[[], None]) -> Prefix:
    limit()
    return ["sh", "-c", f'echo $$ >{group.path}/cgroup.procs; exec "$@"', "sh"]


def by_tasks(group: Group) -> Iterator[Prefix]:
    """TasksMax; a tree has fifteen processes before it does anything."""
    for count in (2, 10, 16, 24):
        yield _inside(group, lambda count=count: group.write("pids.max", count))  # type: ignore[misc]


def by_memory(group: Group) -> Iterator[Prefix]:
    """MemoryMax: the kernel kills whom it likes, start too."""
    for mib in (16, 48, 64, 100):
        yield _inside(group, lambda mib=mib: group.limit_memory(mib * MIB))  # type: ignore[misc]


CASES: dict[str, tuple[Callable[[Any], Iterator[Prefix]], str]] = {
    "softlimit": (by_softlimit, ""),
    "nofile": (by_nofile, ""),
    "tasks": (by_tasks, "pids"),
    "memory": (by_memory, "memory"),
}
BROKE_DOWN = (
    "alert: start broke down: ",
    "alert: controls: ",
    "alert: cannot start: ",
    ": MemoryError: ",
)
"""What start, and a process that it starts again, say when they lack something."""
UNMARKED = b"trouble "
"""What send says when it cannot mark what was delivered: it is delivered twice."""


def work_under(tree: Tree, prefix: Prefix) -> Log:
    """Start the tree under a limit and end it, if it has not ended; its whole log."""
    tree.launch([*prefix, *tree.command("start")], until=b"")
    log = follow(tree)
    log.wait_said(rb"end msg ", ENDS, WORK_S)
    process = tree.process
    assert process is not None
    process.terminate()
    # 111 with a line; killed by the kernel; TERM before anything has begun.
    assert process.wait(60) in (0, 111, -9, -15)
    assert log.wait_over(60)
    assert not any(line.text.startswith(b"Traceback") for line in log.lines)
    return log


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_tree_under_limits_works_or_says_no_and_loses_nothing(
    tree: Tree, open_tmp: Path, case: str
) -> None:
    limits, controller = CASES[case]
    sink = world.Sink(random.Random(0))
    answers = open_tmp / "answers"
    logs: list[Log] = []
    lent = own_group(controller, tree) if controller else nullcontext()
    with lent as group, world.listening(sink) as port:
        ports = world.set_up(tree, port)
        sources = [
            world.inject(tree, ports, n, answers, (n, len(world.ENTRANCES)), "asked")
            for n in range(len(world.ENTRANCES))
        ]
        for prefix in limits(group):
            for source in sources:
                assert source.stdin is not None
                source.stdin.write(b"x" * EACH)
                source.stdin.flush()
            logs.append(work_under(tree, prefix))
        killer = kills.Killer(tree, random.Random(0))
        killer.start()
        for source in sources:
            source.communicate(timeout=90)
        kills.finish(tree, killer)
        logs += killer.logs
    ledger = Ledger()
    ledger.read_answers(answers.read_bytes())
    for log in logs:
        ledger.read_log(log.lines)
    ledger.arrived.update(sink.arrived)
    for maildir, kinds in world.maildirs(tree).items():
        ledger.read_maildir(maildir, *kinds)
    assert not sink.mutilated
    ledger.faults = [
        each for each in ledger.faults if not any(word in each for word in BROKE_DOWN)
    ]
    assert ledger.accepted
    assert ledger.lost == []
    said = b"".join(line.text for log in logs for line in log.lines)
    assert b" is held" not in said
    if UNMARKED not in said:
        ledger.check()
    assert not ledger.faults
    kills.sweep(tree)


def test_user_with_few_processes_runs_a_tree_or_hears_why_not(
    installation: Installation, open_tmp: Path
) -> None:
    with Tree(installation, open_tmp / "home", uid=64953) as tree:
        bench = Bench(tree)
        for most in (1, 6, 10, 12, 16, 24):
            command = ["prlimit", f"--nproc={most}", *tree.command("start")]
            tree.launch(command, until=b"status: local 0/|unable to start |alert: ")
            if tree.log.endswith(b"alert: cannot fork: " + NO_MORE):
                assert tree.wait() == 111
                continue
            bench.inject()
            drain(tree, 1)
            assert tree.stop() == 0
        tree.find(rb"unable to start qmail-\w+: cannot fork: " + NO_MORE, 0)
        for word in (b"Traceback", b"is held"):
            assert word not in tree.log
        tree.start()
        recover(bench)
        tree.wait_empty()
        assert tree.stop() == 0
