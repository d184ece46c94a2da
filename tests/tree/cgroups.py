"""Control groups of our own, where the machine lends any: v1 or v2."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tree.harness import Tree, until

_MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Group:
    """A control group; `is_v2` says how its files are called."""

    path: Path
    is_v2: bool

    def take(self, pid: int) -> None:
        """Move a process; what it forks from then on is in it too."""
        self.write("cgroup.procs", pid)

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def write(self, name: str, value: object) -> None:
        (self.path / name).write_text(str(value))

    # of the memory controller

    @property
    def memory_bytes(self) -> int:
        return int(
            self.read("memory.current" if self.is_v2 else "memory.usage_in_bytes")
        )

    def limit_memory(self, most_bytes: int | None) -> None:
        """Without swap; None lifts it."""
        if self.is_v2:
            self.write("memory.swap.max", 0)
            self.write("memory.max", "max" if most_bytes is None else most_bytes)
        else:
            self.write("memory.swappiness", 0)
            self.write(
                "memory.limit_in_bytes", -1 if most_bytes is None else most_bytes
            )


def _parents(controller: str) -> Iterator[Group]:
    """Where a group with this controller may be made, below the one that we are in."""
    for row in Path("/proc/self/cgroup").read_text().split():
        number, controllers, name = row.split(":", 2)
        if controller in controllers.split(","):
            yield Group(Path(f"{_MOUNT}/{controller}{name}"), is_v2=False)
        elif number == "0":
            path = Path(f"{_MOUNT}{name}")
            # A group with processes of its own has none below it with a controller.
            for each in (path, *path.parents):
                lent = each / "cgroup.subtree_control"
                if lent.exists() and controller in lent.read_text().split():
                    yield Group(each, is_v2=True)


@contextmanager
def own_group(controller: str, tree: Tree) -> Iterator[Group]:
    """A new group with this controller; the test is skipped when there is none.

    At the end the tree, which may be in it, is there no more.
    """
    why = "not mounted"
    for parent in _parents(controller):
        group = Group(parent.path / f"qsend-test-{secrets.token_hex(4)}", parent.is_v2)
        try:
            group.path.mkdir()
            break
        except OSError as exc:
            why = str(exc.strerror)
    else:
        pytest.skip(f"no cgroup with the controller {controller} is lent: {why}")
    try:
        yield group
    finally:
        tree.kill()
        until(lambda: not group.read("cgroup.procs"))
        group.path.rmdir()
