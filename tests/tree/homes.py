"""Homes of mail users under test: what belongs to an account, and who it is."""

from __future__ import annotations

import os
from pathlib import Path
from pwd import getpwnam

from tests.tree.harness import Tree

UNKNOWN_UID = 64520
"""The first of those that no account of the machine has."""


class Home:
    """A directory of one uid and gid, with or without an account of that number."""

    def __init__(self, path: Path, uid: int, gid: int) -> None:
        self.home = path
        self.uid, self.gid = uid, gid

    def make(self) -> None:
        """Make the directory, and those above it that are missing, which are root's."""
        self.home.mkdir(mode=0o755, parents=True)
        self.own(self.home)

    def own(self, path: Path) -> None:
        """As chown -R of what is at `path`."""
        for each in (path, *path.rglob("*")):
            os.chown(each, self.uid, self.gid)

    def write(self, name: str, content: str, mode: int = 0o644) -> Path:
        path = self.home / name
        path.write_text(content)
        path.chmod(mode)
        self.own(path)
        return path

    def maildir(self, tree: Tree, name: str = "Maildir") -> Path:
        """One made by maildirmake, by the user."""
        path = self.home / name
        done = tree.program("maildirmake", str(path))
        assert (done.returncode, done.stderr) == (0, b"")
        self.own(path)
        return path


class Account(Home):
    """An account of the machine, and what it has."""

    def __init__(self, name: str) -> None:
        entry = getpwnam(name)
        super().__init__(Path(entry.pw_dir), entry.pw_uid, entry.pw_gid)
        self.name = name
        self.address = f"{name}@here.example".encode()
        self.spool = Path("/var/mail", name)


def assign(tree: Tree, *lines: str) -> None:
    """Put a users/assign of these lines in force."""
    path = tree.home / "users/assign"
    path.write_text("".join(f"{line}\n" for line in (*lines, ".")))
    done = tree.program("qmail-newu")
    assert (done.returncode, done.stderr) == (0, b"")


def make_users(tree: Tree, base: Path, *names: str) -> dict[str, Home]:
    """Users that only users/assign knows, each with a Maildir in a home below base."""
    homes = {}
    lines = []
    for number, name in enumerate(names, UNKNOWN_UID):
        made = homes[name] = Home(base / f"home-{name}", number, number)
        made.make()
        made.maildir(tree)
        line = f"{name}:{number}:{number}:{made.home}"
        lines += [f"={name}:{line}:::", f"+{name}-:{line}:-::"]
    assign(tree, *lines)
    return homes
