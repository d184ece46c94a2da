"""Recorded runs of a real tree, and real trees started on what power cuts leave."""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path

from qsend.core.model import MessId
from qsend.formats.paths import SPLIT_DIRS, parse_messid, split_name
from qsend.sysio import clock
from tests.faketree import Node
from tests.torture import judge, powercut, recording, world
from tests.torture.ledger import Pair
from tests.torture.recorddisk import RecordDisk
from tests.tree.harness import ROOT, Installation, Tree

_TRIES = 3
_NOT_KEPT = ("lock", "run")


def make(place: Path, seed: int, count: int, level: str, kills: int) -> RecordDisk:
    """Record a tree that works through `count` messages while processes are killed.

    A call under way when its process was killed may have been done or not, and no
    log can tell: a run whose log does not make what is on the disk is made again.
    Raises: AssertionError when that happens again and again.
    """
    for attempt in range(_TRIES):
        there = place / f"run{attempt}"
        there.mkdir()
        there.chmod(0o755)
        scene = [sys.executable, "-m", "tests.torture.scene", str(there)]
        log = there / "log"
        recording.record(
            [*scene, str(seed), str(count), level, str(kills)], log, cwd=ROOT
        )
        began = int((there / "home").stat().st_mtime)
        disk = RecordDisk.replay(there / "home", recording.read(log), began)
        log.unlink()
        assert not disk.strange, f"calls that nothing models: {disk.strange}"
        if disk.files() == _on_disk(there / "home"):
            return disk
    raise AssertionError("no log of a run made what was on the disk after it")


def _on_disk(home: Path) -> dict[str, bytes]:
    """What a RecordDisk of this home should have."""
    found = {}
    for top, base in (("", home / "queue"), ("alias/", home / "alias")):
        for path in base.rglob("*"):
            name = str(path.relative_to(base))
            is_ours = "/" in name and not name.startswith(_NOT_KEPT)
            if is_ours and path.is_file():
                found[top + name] = path.read_bytes()
    return found


class Revival:
    """A real tree, started on the queue of one cut after the other."""

    def __init__(self, tree: Tree, port: int, sink: world.Sink) -> None:
        """`tree` is set up; `port` is that of `sink`."""
        self._tree = tree
        self._sink = sink
        world.set_up(tree, port)
        tree.control("smtplisten", None)
        tree.control("qmtplisten", None)
        tree.control("qmqplisten", None)

    def try_out(self, disk: RecordDisk, cut: powercut.Cut) -> list[str]:
        """Start on what `cut` leaves, wait until the queue is empty; what is wrong."""
        accepted, taken = powercut.said(disk, cut.count)
        found = powercut.left_by(disk, cut)
        left = judge.Left.read(found.files())
        self._empty()
        self._sink.arrived.clear()
        write_queue(found.nodes(), self._tree.home)
        self._tree.start()
        end_mono = clock.mono() + 60
        while _waiting(self._tree):
            if clock.mono() > end_mono:
                return [f"never empty: {_waiting(self._tree)}"]
            self._tree.watch(0.2)
            self._tree.run("flush", "all")
        code = self._tree.stop()
        faults = [f"exit code {code}"] if code else []
        faults += re.findall(r"alert: .*", self._tree.log.decode(errors="replace"))
        self._tree.log = b""
        after = judge.Left.read(_on_disk(self._tree.home))
        took: set[Pair] = set(self._sink.arrived)
        lost = judge.missing(accepted, after, taken | took)
        faults += [f"{pair} is lost" for pair in lost]
        faults += [
            f"{pair} came again"
            for pair in took & taken
            if judge.is_single(pair) and pair not in left.waiting
        ]
        return faults + after.faults

    def _empty(self) -> None:
        for path in _on_disk(self._tree.home):
            base = self._tree.home / ("" if path.startswith("alias/") else "queue")
            (base / path).unlink()


def write_queue(nodes: dict[str, Node], home: Path) -> None:
    """Write files (path, node) into a home whose queue and Maildirs are empty.

    A file of mess/ has another inode number here: all files of its message get that
    one's, as `qsend repair` does after a queue was moved. Files without a message
    keep their number unless it is given to one; then they get one that nobody has.
    """
    numbers: dict[int, int] = {}
    mess = [path for path in nodes if path.startswith("mess/")]
    made = {}
    for path in mess:
        new = home / "queue/pid" / path.replace("/", ".")
        new.write_bytes(b"")
        made[path] = new
        numbers[int(path.rpartition("/")[2])] = new.stat().st_ino
    written: dict[int, Path] = {}
    for path, node in nodes.items():
        target = _place(path, numbers, home)
        first = written.get(id(node))
        if first is not None:
            os.link(first, target)  # noqa: TID251 - todo/N is intd/N
            continue
        if path in made:
            made[path].rename(target)
        written[id(node)] = target
        _write(target, node)


def _place(path: str, numbers: dict[int, int], home: Path) -> Path:
    """Where a file goes."""
    top, _, rest = path.partition("/")
    if top == "alias":
        return home / path
    messid = parse_messid(rest.rpartition("/")[2])
    if messid is None:
        return home / "queue" / path
    number = numbers.get(messid, messid)
    if messid not in numbers and messid in numbers.values():
        number = max(*numbers.values(), *numbers) + messid
    name = split_name(MessId(number)) if top in SPLIT_DIRS else str(number)
    return home / "queue" / top / name


def _write(path: Path, node: Node) -> None:
    path.write_bytes(node.data)
    directory = path.parent.stat()
    os.chown(path, directory.st_uid, directory.st_gid)
    is_senders = directory.st_mode & 0o777 == 0o700 and path.parent.name != "intd"
    path.chmod(0o600 if is_senders else 0o644)
    os.utime(path, ns=(node.mtime_ns, node.mtime_ns))


def _waiting(tree: Tree) -> list[Path]:
    names = {"info", "todo"}
    return [path for path in tree.queue_files() if names & set(path.parts)]


def sample(
    installation: Installation,
    home: Path,
    disk: RecordDisk,
    chance: random.Random,
    count: int,
) -> list[str]:
    """Start a real tree on so many cuts; what is wrong."""
    sink = world.Sink(chance)
    faults = []
    with Tree(installation, home) as tree, world.listening(sink) as port:
        revival = Revival(tree, port, sink)
        for _ in range(count):
            cut = powercut.choose(disk, chance)
            faults += [f"{cut}: {each}" for each in revival.try_out(disk, cut)]
    return faults
