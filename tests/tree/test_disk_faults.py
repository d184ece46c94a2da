"""Every call on the disk fails for a while, in each process that works on it."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from qsend.core.model import SPLIT
from qsend.sysio import trigger
from qsend.sysio.accounts import load_accounts
from tests.queues import inject
from tests.tree.harness import Installation, Tree, until
from tests.tree.numbered import Bench, cpu_s, drain, recover

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EMFILE)
CALLS = {
    "queue": ("open", "close", "write", "fsync", "link", "stat"),
    "send": ("open", "close", "write", "fsync", "unlink", "utime", "stat", "read"),
    "clean": ("fsync", "unlink", "stat"),
    "local": ("open", "close", "write", "fsync", "link", "stat", "read"),
    "lspawn": ("open", "close"),
}
"""What each process does with the disk for ordinary messages."""
QUIET = {("local", "close"), ("lspawn", "close")}
"""Of the message, which was only read: no reason to say anything."""
LINES_MAX = 60
"""Of a second with a fault; three messages alone have about twenty."""
CPU_S = 0.7
"""Of the whole tree in the second after that, which is given to trying again."""
FAULT_S = 0.4
"""How long a fault lasts after the messages."""
ALL = os.environ.get("QSEND_FAULTS") == "all"


def cases() -> Iterator[tuple[str, str, int]]:
    """(kind, call, errno): one error for each call, or all of them."""
    turn = itertools.cycle(ERRORS)
    for kind, calls in CALLS.items():
        for call in calls:
            for code in ERRORS if ALL else (next(turn),):
                yield kind, call, code


@dataclass
class Faulty(Bench):
    """A bench whose disk fails on demand; `place` is a directory for what is said."""

    place: Path = Path()

    def fail(self, fault: dict[str, object]) -> None:
        path = self.place / "fault"
        text = json.dumps(fault) if fault else ""
        path.write_text(text.ljust(100))

    @property
    def hits(self) -> int:
        return (self.place / "hits").stat().st_size

    def start(self) -> None:
        patch = f"PLACE = {str(self.place)!r}\n{(HERE / 'faulty.py').read_text()}"
        self.tree.start(patch=patch)


@pytest.fixture
def bench(installation: Installation, open_tmp: Path) -> Iterator[Faulty]:
    place = open_tmp / "place"
    place.mkdir()
    for name in ("fault", "hits"):
        (place / name).touch()
    (place / "fault").write_text(" " * 100)
    with Tree(installation, open_tmp / "home") as tree:
        bench = Faulty(tree, place=place)
        bench.start()
        yield bench
        assert tree.stop() == 0


def pids(tree: Tree) -> set[int]:
    """Processes of the tree; local children come and go."""
    names = ("queue", "send", "clean", "lspawn")
    return {pid for name in names for pid in tree.pids(f"qmail-{name}")}


@pytest.mark.slow
def test_failing_disk_defers_and_loses_nothing(bench: Faulty) -> None:
    tree = bench.tree
    recover(bench)
    before = pids(tree)
    for kind, call, code in cases():
        case = f"{kind} {call} {errno.errorcode[code]}"
        hits, mark, began_cpu_s = bench.hits, len(tree.log), cpu_s(tree)
        bench.fail({"kind": kind, "call": call, "errno": code})
        refused = bench.inject()
        until(lambda hits=hits: bench.hits > hits)  # type: ignore[misc]
        drain(tree, FAULT_S)
        bench.fail({})
        lines = tree.log[mark:].splitlines()
        assert refused == 0 or kind == "queue", case
        assert len(lines) < LINES_MAX, (case, lines)
        assert cpu_s(tree) - began_cpu_s < CPU_S, case
        # enqueue says the same thing once a minute.
        reason = os.strerror(code).encode()
        told = reason in tree.log or reason.replace(b" ", b"_") in tree.log
        assert told or b": deferral: " in tree.log[mark:] or (kind, call) in QUIET, case
        recover(bench)
        assert pids(tree) == before, case
    for word in (b"Traceback", b"crashed", b"is held", b"alert"):
        assert word not in tree.log
    tree.wait_empty()


ASIDE = {
    "clean": ("mkdir", "open", "write", "fsync", "link", "unlink"),
    "send": ("open", "rename", "fsync"),
}
"""What setting a damaged message aside takes."""


@pytest.mark.slow
def test_failing_disk_keeps_what_is_damaged_until_it_is_aside(bench: Faulty) -> None:
    tree, turn = bench.tree, itertools.cycle(ERRORS)
    queue, account = tree.home / "queue", load_accounts(single_user=False).qmailq
    for kind, calls in ASIDE.items():
        for call in calls:
            case, hits = f"{kind} {call}", bench.hits
            bench.fail({"kind": kind, "call": call, "errno": next(turn)})
            messid = inject(queue, b"x\n\ny\n", b"garbage", account)
            trigger.pull(f"{queue}/lock/trigger")
            until(lambda hits=hits: bench.hits > hits)  # type: ignore[misc]
            drain(tree, FAULT_S)
            bench.fail({})
            tree.find(rb"alert: .*\b%d\b" % messid)
            where = queue / f"mess/{messid % SPLIT}/{messid}"
            until(lambda where=where: not where.exists())  # type: ignore[misc]
            found = [*(queue / "aside").glob(f"{messid}.*/todo")]
            assert found, case
            for todo in found:
                assert todo.read_bytes() == b"garbage", case
                assert (todo.parent / "reason").exists(), case
            recover(bench)
    for word in (b"Traceback", b"crashed", b"lost "):
        assert word not in tree.log
    # Only now is it certain that send has moved its files too.
    assert tree.stop() == 0
    for path in (queue / "aside").iterdir():
        shutil.rmtree(path)
    bench.start()
    tree.wait_empty()


def _load(bench: Bench, is_over: threading.Event) -> int:
    """Inject until told to stop; how many messages were not taken."""
    refused = 0
    while not is_over.is_set():
        refused += bench.inject(b"x" * 20_000)
    return refused


def test_disk_that_fills_and_empties_under_load_loses_nothing(bench: Faulty) -> None:
    tree = bench.tree
    assert tree.stop() == 0
    tree.control("queueminfree", "0\n")
    queue = tree.home / "queue"
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=750", "tmpfs", str(queue)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        bench.start()
        pytest.skip("this machine lets nobody mount")
    try:
        tree.run("setup")
        bench.start()
        before, is_over = pids(tree), threading.Event()
        with ThreadPoolExecutor() as pool:
            load = pool.submit(_load, bench, is_over)
            for _ in range(6):
                with (queue / "filler").open("wb", buffering=0) as file:
                    with suppress(OSError):
                        while file.write(bytes(4096)):
                            pass
                    drain(tree, 0.5)
                (queue / "filler").unlink()
                drain(tree, 0.3)
            is_over.set()
            while not load.done():
                drain(tree, 0.05)
        assert load.result() > 0
        assert len(bench.accepted) > 10
        recover(bench)
        assert pids(tree) == before
        assert len(tree.log) < 1 << 20
        for word in (b"Traceback", b"crashed", b"is held", b"alert"):
            assert word not in tree.log
        tree.wait_empty()
        assert tree.stop() == 0
    finally:
        tree.kill()
        subprocess.run(["umount", queue], check=True)
    bench.start()
