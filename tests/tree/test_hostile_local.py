"""A user's own code, in the local child or started by it, harms that user alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cdblib
import psutil
import pytest

from tests.tree import procview
from tests.tree.harness import Tree, until

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
EVE, ANN = 64941, 64942
DEEDS = (
    b"forge", b"pack", b"oversize", b"garbage", b"truncated", b"question", b"greet",
    b"ping", b"descriptors", b"keep",
)  # fmt: skip


@pytest.fixture
def homes(tree: Tree, open_tmp: Path) -> dict[str, Path]:
    """Homes of eve and ann, who get all mail for their names and name-EXT."""
    made = {}
    with (tree.home / "users/cdb").open("wb") as file, cdblib.Writer(file) as writer:
        for name, uid in (("ann", ANN), ("eve", EVE)):
            home = open_tmp / name
            home.mkdir(mode=0o755)
            os.chown(home, uid, uid)
            value = f"{name}\0{uid}\0{uid}\0{home}\0".encode()
            writer.put(b"!%b\0" % name.encode(), value + b"\0")
            writer.put(b"!%b-" % name.encode(), value + b"-\0")
            made[name] = home
        writer.put(b"", b"-")
    return made


def instruct(home: Path, ext: str, content: str) -> None:
    (home / f".qmail-{ext}").write_text(content)


@contextmanager
def waiting_delivery(tree: Tree, home: Path) -> Iterator[None]:
    """A delivery of ann's that runs for as long as the block, then ends well."""
    fifo = home / "fifo"
    os.mkfifo(fifo)
    os.chown(fifo, ANN, ANN)
    instruct(home, "wait", f"|: >started; cat {fifo}\n")
    tree.queue([b"ann-wait@here.example"])
    until((home / "started").exists)
    # Open at both ends, so that cat waits for bytes, or for our end.
    fd = os.open(fifo, os.O_RDWR)
    try:
        until(lambda: _holds(ANN, fifo))
        yield
        assert b"ann-wait@here.example" not in tree.reported()
    finally:
        os.close(fd)
    assert tree.reports(b"ann-wait@here.example") == [b"success: did_0+0+1/"]


def _holds(uid: int, path: Path) -> bool:
    """Whether a process of `uid` has `path` open."""
    for process in psutil.process_iter(["uids"]):
        uids = process.info["uids"]
        if uids is None or uids.real != uid:
            continue
        fds = Path(f"/proc/{process.pid}/fd")
        try:
            if str(path) in {os.readlink(each) for each in fds.iterdir()}:
                return True
        except OSError:
            continue
    return False


def children_of(uid: int, tree: Tree) -> list[int]:
    pids = tree.pids("qmail-local")
    return [pid for pid in pids if procview.look(pid).ids[0] == {str(uid)}]


def lspawn_facts(tree: Tree) -> tuple[int, int, int]:
    """Pid, number of descriptors, resident bytes."""
    [pid] = tree.pids("qmail-lspawn")
    process = psutil.Process(pid)
    return pid, process.num_fds(), process.memory_info().rss


def test_taken_over_child_forges_nothing_and_stops_nobody(
    tree: Tree, homes: dict[str, Path]
) -> None:
    tree.maildir(home=homes["ann"])
    instruct(homes["ann"], "box", "./Maildir/\n")
    tree.start(patch=(HERE / "hostile_local.py").read_text())
    with waiting_delivery(tree, homes["ann"]):
        before = lspawn_facts(tree)
        for deed in DEEDS:
            recip = b"eve-%b@here.example" % deed
            tree.queue([recip])
            [report] = tree.reports(recip)
            assert report == b"deferral: The_delivery_process_crashed._(#4.3.0)/", deed
            tree.queue([b"ann-box@here.example"])
            tree.wait_for(rb"success: did_1\+0\+0/\n")
        until(lambda: not children_of(EVE, tree))
        after = lspawn_facts(tree)
        assert after[0] == before[0]
        # The child that delivered to ann-box in between may be there or not.
        assert after[1] <= before[1] + 1
        assert after[2] < before[2] + (16 << 20)
    assert b"forged" not in tree.log
    assert len(list((homes["ann"] / "Maildir/new").iterdir())) == len(DEEDS)
    assert tree.stop() == 0


def test_program_of_a_user_gets_nothing_out_of_what_runs_it(
    tree: Tree, homes: dict[str, Path]
) -> None:
    program, answers = homes["eve"] / "program.py", homes["eve"] / "answers"
    shutil.copy(HERE / "hostile_program.py", program)
    tree.start()
    with waiting_delivery(tree, homes["ann"]):
        [lspawn], [send] = tree.pids("qmail-lspawn"), tree.pids("qmail-send")
        [ann] = children_of(ANN, tree)
        python = tree.installation.python
        instruct(
            homes["eve"],
            "attack",
            f"|exec {python} -I {program} {answers} {lspawn} {send} {ann}\n",
        )
        tree.queue([b"eve-attack@here.example"])
        assert tree.reports(b"eve-attack@here.example") == [b"success: did_0+0+1/"]
        rows = (row.split(": ", 1) for row in answers.read_text().splitlines())
        told = dict(rows)
        # The message, and the pipe for what it says.
        assert told.pop("fds") == "[0, 1, 2]"
        assert int(told.pop("parent")) in children_of(EVE, tree)
        assert len(told) > 140
        got = {what: tried for what, tried in told.items() if tried == "done"}
        assert not got
        assert set(told.values()) <= {"EPERM", "EACCES", "ENXIO"}
    assert tree.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_signals_to_ones_own_child_hold_up_nobody_else(
    tree: Tree, homes: dict[str, Path], signum: signal.Signals
) -> None:
    tree.maildir(home=homes["ann"])
    instruct(homes["ann"], "box", "./Maildir/\n")
    instruct(homes["eve"], "sig", f"|: >done; kill -{signum.value} $PPID\n")
    tree.start()
    with waiting_delivery(tree, homes["ann"]):
        tree.queue([b"eve-sig@here.example", b"ann-box@here.example"])
        until((homes["eve"] / "done").exists)
        assert tree.reports(b"ann-box@here.example") == [b"success: did_1+0+0/"]
        if signum == signal.SIGSTOP:
            assert b"eve-sig@here.example" not in tree.reported()
            for pid in children_of(EVE, tree):
                os.kill(pid, signal.SIGKILL)
        assert tree.reports(b"eve-sig@here.example") == [
            b"deferral: The_delivery_process_crashed._(#4.3.0)/"
        ]
        # Others of hers are delivered by a new child, and so is hers.
        for name in (b"ann-box", b"eve-none"):
            tree.queue([name + b"@here.example"])
        tree.wait_for(rb"to local eve-none@here\.example\n")
        tree.wait_for(rb"success: did_1\+0\+0/\n")
    assert not re.search(rb"message \d+ is held", tree.log)
    assert tree.stop() == 0
