"""The two list programs that tests run: our own, and ezmlm where there is one.

$EZMLM_HOME is where ezmlm-idx is installed, with its programs in bin, its templates
in etc (etc/default among them) and its subscriber plugins in lib.
"""

from __future__ import annotations

import os
import re
import shutil
from abc import ABC, abstractmethod
from pathlib import Path

from tests.tree import listprogram
from tests.tree.harness import HOST, Tree
from tests.tree.homes import Home

VARIABLE = "EZMLM_HOME"
EXT = "talk"


class ListKind(ABC):
    """One list, LOCAL@HOST, of one user; `path` is its directory."""

    def __init__(self, tree: Tree, home: Home, local: str, owner: str) -> None:
        self.tree, self.home = tree, home
        self.local, self.owner = local, owner
        self.path = home.home / "list"
        self.make()
        home.own(home.home)

    def run(self, program: str, *args: str) -> bytes:
        """Run one of its programs as the user; what it writes."""
        environ = self.environ()
        done = self.tree.call([program, *args], uid=self.home.uid, env=environ)
        return done.stdout

    def environ(self) -> dict[str, str]:
        return {"PATH": f"{self.tree.home}/bin:{os.environ['PATH']}"}

    @abstractmethod
    def make(self) -> None: ...

    @abstractmethod
    def subscribe(self, address: str) -> None: ...

    @abstractmethod
    def members(self) -> set[str]: ...

    @abstractmethod
    def has_bounced(self) -> bool:
        """Whether mail to any subscriber is noted to have come back."""

    @abstractmethod
    def warn(self) -> None:
        """Go on with those whose mail came back, as cron does now and then."""


class OwnList(ListKind):
    """Of listprogram.py."""

    def make(self) -> None:
        for name in ("subscribers", "bounce"):
            (self.path / name).mkdir(parents=True)
        (self.path / "key").write_bytes(os.urandom(16))
        self.program = self.home.home / "listprogram.py"
        shutil.copy(listprogram.__file__, self.program)
        self.python = str(self.tree.installation.python)
        for ext, command in (
            ("", "send"),
            ("-default", "manage"),
            ("-return-default", "bounce"),
        ):
            line = f"|{self.python} {self.program} {command} {self.path}\n"
            self.home.write(f".qmail-{EXT}{ext}", line)
        self.home.write(f".qmail-{EXT}-owner", f"&{self.owner}\n")

    def subscribe(self, address: str) -> None:
        self._own("sub", str(self.path), address)

    def members(self) -> set[str]:
        found = (path.name for path in (self.path / "subscribers").iterdir())
        return {re.sub("=([^=]*)$", r"@\1", each) for each in found}

    def has_bounced(self) -> bool:
        found = list((self.path / "bounce").iterdir())
        return any(path.stat().st_size for path in found)

    def warn(self) -> None:
        self._own("warn", str(self.path), self.local, HOST)

    def _own(self, *args: str) -> None:
        self.run(self.python, str(self.program), *args)


class EzmlmList(ListKind):
    """Of ezmlm-idx."""

    def environ(self) -> dict[str, str]:
        return super().environ() | self._places()

    def make(self) -> None:
        self.bin = f"{os.environ[VARIABLE]}/bin"
        dot = self.home.home / f".qmail-{EXT}"
        self.tree.call(
            [
                f"{self.bin}/ezmlm-make",
                *("-5", self.owner, str(self.path), str(dot), self.local, HOST),
            ],
            env=self.environ(),
        )
        # Its programs are told what is not where they were built for.
        words = "".join(f"export {name}={at}; " for name, at in self._places().items())
        for path in self.path.rglob("*"):
            if path.is_file() and path.stat().st_size:
                text = path.read_bytes()
                if text.lstrip().startswith(b"|") or b"\n|" in text:
                    lines = re.sub(rb"(?m)^\|", f"|{words}".encode(), text)
                    path.write_bytes(lines)

    def subscribe(self, address: str) -> None:
        self.run(f"{self.bin}/ezmlm-sub", str(self.path), address)

    def members(self) -> set[str]:
        return set(self.run(f"{self.bin}/ezmlm-list", str(self.path)).decode().split())

    def has_bounced(self) -> bool:
        bounce = self.path / "bounce"
        return any(path.is_file() and path.stat().st_size for path in bounce.rglob("*"))

    def warn(self) -> None:
        self.run(f"{self.bin}/ezmlm-warn", "-t", "0", str(self.path))

    def _places(self) -> dict[str, str]:
        at = Path(os.environ[VARIABLE])
        return {
            "EZMLM_BIN": str(at / "bin"),
            "EZMLM_ETC": str(at / "etc"),
            "EZMLM_LIB": str(at / "lib"),
            "QMAILHOME": str(self.tree.home),
        }
