"""A recorded run as a disk in memory: what was changed, what was synced, what was said.

The paths of a home that count are those of its queue and its Maildirs. On the disk the
queue is the root, as FakeQueue has it, and `alias/Maildir/new` a directory beside it.
What a power cut leaves is FakeTree's; the two things more here are that a sync
vouches only for what was there when it began, and that a write may be torn.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.fakedisk import FakeDisk
from tests.faketree import ROOT, WHOLE, Node, Op
from tests.torture.recording import Call, Place
from tests.torture.world import MAILDIRS


@dataclass(frozen=True, slots=True)
class Mark:
    """A fact, and how many operations of the disk came before it."""

    ops: int
    text: str


class RecordDisk(FakeDisk):
    """The disk of a recorded home, and the marks."""

    def __init__(self, now: int = 1_000_000_000) -> None:
        """Empty; see `replay`."""
        super().__init__(now)
        self.marks: list[Mark] = []
        self.strange: set[str] = set()
        """Calls that changed files in a way that nothing here models."""
        self._home = ""
        self._unnamed: dict[str, int] = {}
        self._fds: dict[tuple[int, int], int] = {}
        self._sizes: list[int] = []  # by calls ended: operations there were

    @classmethod
    def replay(cls, home: Path, calls: Iterable[Call], now: int) -> Self:
        """What `calls` did in `home` from the mark "begin" on."""
        disk = cls(now)
        disk._home = f"{home}/"
        for path in sorted(_directories(home)):
            disk.mkdir(path)
        disk.sync_all()
        for call in calls:
            disk._play(call)
            disk._sizes.append(len(disk.ops))
        return disk

    def without(self, is_left_out: Callable[[int, Op], bool]) -> Self:
        """The same run without some of its syncs."""
        disk = type(self)()
        disk.now_ns = self.now_ns
        disk._next_node = self._next_node
        disk.marks = self.marks
        for position, op in enumerate(self.ops):
            is_out = op.kind == "sync" and is_left_out(position, op)
            # In the place of what is left out, something that does nothing.
            disk._record(Op("sync", op.node, offset=1) if is_out else op)
        return disk

    def path_of(self, node: int) -> str:
        """The path of a directory; "" for what has no name now."""
        return next((path for path, found in self._walk(ROOT, "") if found == node), "")

    def nodes(self) -> dict[str, Node]:
        """Every regular file by its path."""
        return {
            path: self._nodes[node]
            for path, node in self._walk(ROOT, "")
            if stat.S_ISREG(self._nodes[node].mode)
        }

    # one call

    def _play(self, call: Call) -> None:
        if not self.marks and not call.name.startswith("write"):
            return  # the home is being set up
        match call.name:
            case "openat":
                self._opened_call(call)
            case "write" | "pwrite64":
                self._written(call)
            case "fsync" | "fdatasync" | "syncfs":
                self._synced(call)
            case "linkat":
                self._linked(call)
            case "unlinkat" | "mkdirat" | "renameat" | "utimensat" | "ftruncate":
                self._changed(call)
            case _:
                self._wonder(call)

    def _wonder(self, call: Call) -> None:
        """A call that is not modelled; it must not be about what counts."""
        for arg in (*call.args, call.opened):
            path = arg.path if isinstance(arg, Place) else arg
            text = os.fsdecode(path) if isinstance(path, bytes) else str(path)
            if self._inside(text) is not None:
                self.strange.add(call.name)

    def _inside(self, path: str) -> str | None:
        """The path on this disk; None for what does not count."""
        rest = path.removeprefix(self._home)
        if rest == path:
            return None
        top, _, below = rest.partition("/")
        if top == "queue":
            return None if below.startswith("lock") else below
        parts = below.split("/")
        return rest if top == "alias" and parts[0] in MAILDIRS else None

    def _at_path(self, place: Place, name: bytes) -> str | None:
        path = os.fsdecode(name)
        return self._inside(os.path.normpath(os.path.join(place.path, path)))

    def _find(self, place: Place) -> int | None:
        """The node that a descriptor is open for."""
        path = self._inside(place.path)
        if path is None:
            return None
        if place.path in self._unnamed:
            return self._unnamed[place.path]
        return None if place.is_gone else self._node(path)

    def _node(self, path: str) -> int | None:
        node: int | None = ROOT
        for part in path.split("/") if path else ():
            node = self._nodes[node].names.get(part) if node is not None else None
        return node

    def _split(self, path: str) -> tuple[int, str]:
        """(directory, name there)."""
        directory, _, name = path.rpartition("/")
        node = self._node(directory)
        assert node is not None, path
        return node, name

    def _opened_call(self, call: Call) -> None:
        place, name, flags = call.args[:3]
        assert isinstance(place, Place)
        assert isinstance(name, bytes)
        assert isinstance(flags, str)
        path = self._at_path(place, name)
        if path is None:
            return
        if "O_TMPFILE" in flags:
            assert call.opened is not None
            node = self._make(int(call.opened.path.rpartition("#")[2]))
            self._unnamed[call.opened.path] = node
            self._fds[call.thread, call.result] = node
        elif "O_CREAT" in flags and self._node(path) is None:
            node = self._make(0)
            directory, name_there = self._split(path)
            self._record(Op("link", directory, name_there, target=node))
        elif "O_TRUNC" in flags:
            known = self._node(path)
            assert known is not None
            self._record(Op("truncate", known))

    def _make(self, ino: int) -> int:
        """A file; its inode number counts only where it is a name in mess/."""
        node = self._next_node
        self._next_node += 1
        mode = stat.S_IFREG | 0o644
        self._record(Op("create", node, target=node, offset=ino, mtime_ns=mode))
        return node

    def _written(self, call: Call) -> None:
        place, data = call.args[:2]
        assert isinstance(place, Place)
        assert isinstance(data, bytes)
        if place.path.endswith("/marks"):
            text = data.decode().strip()
            self.marks.append(Mark(len(self.ops), text))
            return
        node = self._find(place)
        if node is None:
            return
        at = call.args[3] if call.name == "pwrite64" else len(self._nodes[node].data)
        assert isinstance(at, int)
        self._record(Op("write", node, offset=at, data=data[: call.result]))

    def _synced(self, call: Call) -> None:
        [place] = call.args
        assert isinstance(place, Place)
        # What had ended when the sync began is what it vouches for.
        size = self._sizes[call.began - 1] if call.began else 0
        node = WHOLE if call.name == "syncfs" else self._find(place)
        if node is not None and size:
            self._record(Op("sync", node, offset=size))

    def _linked(self, call: Call) -> None:
        place, name, target, new = call.args[:4]
        assert isinstance(place, Place)
        assert isinstance(target, Place)
        assert isinstance(name, bytes)
        assert isinstance(new, bytes)
        path = self._at_path(target, new)
        if path is None:
            return
        if name.startswith(b"/proc/self/fd/"):
            node: int | None = self._fds[call.thread, int(name.rpartition(b"/")[2])]
        else:
            source = self._at_path(place, name)
            node = None if source is None else self._node(source)
        assert node is not None, path
        directory, name_there = self._split(path)
        self._record(Op("link", directory, name_there, target=node))

    def _changed(self, call: Call) -> None:
        place, name = call.args[:2]
        assert isinstance(place, Place)
        if not isinstance(name, bytes):
            self._changed_open(call, place)
            return
        path = self._at_path(place, name)
        if path is None:
            return
        directory, name_there = self._split(path)
        match call.name:
            case "unlinkat":
                self._record(Op("unlink", directory, name_there))
            case "mkdirat":
                self.mkdir(path)
            case "renameat":
                target, new = call.args[2:4]
                assert isinstance(target, Place)
                assert isinstance(new, bytes)
                inside = self._at_path(target, new)
                assert inside is not None
                to, name_to = self._split(inside)
                source = (directory, name_there)
                self._record(Op("rename", to, name_to, source=source))
            case _:
                self._set_time(self._node(path), call)

    def _changed_open(self, call: Call, place: Place) -> None:
        node = self._find(place)
        if node is None:
            return
        if call.name == "ftruncate":
            assert isinstance(call.args[1], int)
            self._record(Op("truncate", node, offset=call.args[1]))
        else:
            self._set_time(node, call)

    def _set_time(self, node: int | None, call: Call) -> None:
        assert node is not None
        time_ns = call.args[2]
        assert isinstance(time_ns, int), call
        self._record(Op("utime", node, mtime_ns=time_ns))


def _directories(home: Path) -> Iterable[str]:
    """The directories that count, as this disk calls them."""
    for path in (home / "queue").rglob("*"):
        if path.is_dir():
            yield str(path.relative_to(home / "queue"))
    yield "alias"
    for name in MAILDIRS:
        for each in ("", "/tmp", "/new", "/cur"):
            yield f"alias/{name}{each}"
