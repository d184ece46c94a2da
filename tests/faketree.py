"""A tree of files in memory that knows which changes survive a power cut.

Every change is an Op in `ops`, and so is every fsync. From any moment of that list
a new disk can be made: `after_kill(n)`, as it is when processes die after n ops
(the kernel keeps everything), and `after_power_cut(n)`, with only what was synced
by then.

The model of durability is the weakest that programs may rely on: fsync of a file
keeps its content and times, not its name; fsync of a directory keeps the names
in it, not the content of the files. A rename is kept when its target is.
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

ROOT = 0
WHOLE = -1
"""The node of a sync of everything, as syncfs does it."""


@dataclass(frozen=True, slots=True)
class Op:
    """One change of the disk, or one sync.

    `kind` is create, link, unlink, rename, write, truncate, utime, chmod or
    sync. `node` is the file or directory it is about (for link, unlink and
    rename the directory that changes), `name` the name there. A sync that took its
    time has in `offset` how many ops there were when it began: it vouches for
    those alone (0: for all before it).
    """

    kind: str
    node: int
    name: str = ""
    target: int = 0
    offset: int = 0
    data: bytes = b""
    mtime_ns: int = 0
    source: tuple[int, str] = (0, "")


@dataclass(slots=True)
class Node:
    """A file or directory; `ino` is what a directory of numbers shows."""

    ino: int
    mode: int
    data: bytearray = field(default_factory=bytearray)
    names: dict[str, int] = field(default_factory=dict)
    mtime_ns: int = 0
    ctime_ns: int = 0
    links: int = 0


class FakeTree:
    """Files and directories, the ops that made them, and what crashes leave."""

    def __init__(self, now: int = 1_000_000_000) -> None:
        """An empty disk on which it is `now` (wall clock, whole seconds)."""
        self.now_ns = now * 1_000_000_000
        self.ops: list[Op] = []
        self._nodes: dict[int, Node] = {ROOT: Node(ino=2, mode=stat.S_IFDIR | 0o755)}
        self._next_node = ROOT + 1

    # what a crash leaves

    def after_kill(self, count: int | None = None) -> Self:
        """The disk as it was after the first `count` ops (default: all)."""
        return self._replayed(self.ops[:count], lambda _position: True)

    def after_power_cut(
        self, count: int | None = None, kept: Collection[int] = ()
    ) -> Self:
        """The disk after a power cut behind the first `count` ops.

        Of what was not synced by then only the ops at the positions in `kept`
        made it to the platter.
        """
        ops = self.ops[:count]
        lost = set(self.unsynced(count)) - set(kept)
        return self._replayed(ops, lambda position: position not in lost)

    def unsynced(self, count: int | None = None) -> list[int]:
        """Positions of the ops that a power cut behind `count` ops may undo."""
        synced: dict[int, int] = defaultdict(int)  # by node: the ops before this
        lost = []
        for position in range(len(self.ops[:count]) - 1, -1, -1):
            op = self.ops[position]
            if op.kind == "sync":
                synced[op.node] = max(synced[op.node], op.offset or position)
            elif op.kind == "create":
                continue
            elif position >= max(synced[op.node], synced[WHOLE]):
                lost.append(position)
        return lost[::-1]

    def _replayed(self, ops: Sequence[Op], is_kept: Callable[[int], bool]) -> Self:
        disk = type(self)()
        disk.now_ns = self.now_ns
        disk._next_node = self._next_node
        for position, op in enumerate(ops):
            if is_kept(position):
                disk._record(op)
        disk.sync_all()
        return disk

    def sync_all(self) -> None:
        """Make everything durable that is there now."""
        self.ops += [Op("sync", node) for node in self._nodes]

    def files(self) -> dict[str, bytes]:
        """Path, as "todo/1007", and content of every file."""
        return {
            path: bytes(self._nodes[node].data)
            for path, node in self._walk(ROOT, "")
            if stat.S_ISREG(self._nodes[node].mode)
        }

    def _walk(self, node: int, prefix: str) -> Iterator[tuple[str, int]]:
        for name, child in self._nodes[node].names.items():
            yield prefix + name, child
            yield from self._walk(child, f"{prefix}{name}/")

    # ops

    def _record(self, op: Op) -> None:
        self.ops.append(op)
        self._do(op)

    def _do(self, op: Op) -> None:
        self.now_ns += 1000
        if op.kind == "create":
            self._nodes[op.target] = Node(
                ino=op.offset, mode=op.mtime_ns, mtime_ns=self.now_ns
            )
            return
        node = self._nodes.get(op.node)
        if node is None or op.kind == "sync":
            return  # or its creation was lost
        node.ctime_ns = self.now_ns
        if op.kind in ("link", "unlink", "rename"):
            self._do_name(op, node)
        else:
            self._do_content(op, node)

    def _do_name(self, op: Op, node: Node) -> None:
        match op.kind:
            case "link":
                self._set_name(node, op.name, op.target)
            case "unlink":
                self._drop_name(node, op.name)
            case _:
                directory = self._nodes[op.source[0]]
                if op.source[1] in directory.names:
                    self._set_name(node, op.name, directory.names[op.source[1]])
                    self._drop_name(directory, op.source[1])

    def _do_content(self, op: Op, node: Node) -> None:
        match op.kind:
            case "write":
                self._fill(node, op)
            case "truncate":
                del node.data[op.offset :]
                node.data += bytes(op.offset - len(node.data))
                node.mtime_ns = self.now_ns
            case "utime":
                node.mtime_ns = op.mtime_ns
            case _:
                node.mode = stat.S_IFMT(node.mode) | op.offset

    def _fill(self, node: Node, op: Op) -> None:
        gap = op.offset - len(node.data)
        if gap > 0:
            node.data += bytes(gap)
        node.data[op.offset : op.offset + len(op.data)] = op.data
        node.mtime_ns = self.now_ns

    def _set_name(self, node: Node, name: str, target: int) -> None:
        self._drop_name(node, name)
        node.names[name] = target
        self._nodes[target].links += 1
        self._nodes[target].ctime_ns = self.now_ns

    def _drop_name(self, node: Node, name: str) -> None:
        target = node.names.pop(name, None)
        if target is not None:
            self._nodes[target].links -= 1
