"""Virtual users for a tree: rows in a real database, and homes that fit them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tests.mariadb import Database
from tests.tree.harness import Tree

UID, GID = 64801, 64802
"""Owner of every virtual home, as `popuser:users` of the documentation."""


class VirtualMail:
    """The homes of one tree's virtual users below one directory, mode 0711."""

    def __init__(self, tree: Tree, database: Database, place: Path) -> None:
        """Let `tree` use `database`; the homes are made in `place`."""
        self.tree = tree
        self.database = database
        self.place = place
        place.mkdir()
        os.chown(place, UID, GID)
        place.chmod(0o711)
        self.use(database.sqlserver)

    def use(self, sqlserver: bytes) -> None:
        """Write control/sqlserver, as only root may read it."""
        self.tree.control("sqlserver", sqlserver.decode())
        (self.tree.home / "control/sqlserver").chmod(0o600)

    def home(self, name: str) -> Path:
        """Make a home with a maildir."""
        home = self.place / name
        self._own(home)
        for each in ("Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"):
            self._own(home / each)
        return home

    def add(self, *names: str) -> None:
        """Users with a row, a home and a maildir."""
        rows = [
            (name, UID, GID, str(self.home(name)), "flibble", "Password", "N")
            for name in names
        ]
        self.database.insert("mailbox", *rows)

    def mail(self, name: str, where: str = "Maildir") -> list[bytes]:
        """What lies in a maildir of a user."""
        return [
            path.read_bytes() for path in (self.place / name / where / "new").iterdir()
        ]

    def delivered_to(self, name: str, where: str = "Maildir") -> list[bytes]:
        """The Delivered-To of each message there, sorted."""
        return sorted(
            line.removeprefix(b"Delivered-To: ")
            for content in self.mail(name, where)
            for line in content.split(b"\n\n", 1)[0].split(b"\n")
            if line.startswith(b"Delivered-To: ")
        )

    def count(self, names: Iterable[str]) -> int:
        """Messages in all their maildirs."""
        return sum(len(os.listdir(self.place / name / "Maildir/new")) for name in names)

    @staticmethod
    def _own(path: Path) -> None:
        path.mkdir(mode=0o700)
        os.chown(path, UID, GID)
