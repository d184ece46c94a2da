"""Fixtures of whole trees."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from pwd import getpwnam

import pytest

from tests.tree.harness import Installation, Tree, install
from tests.tree.homes import Account


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """An installed copy of qsend that every account can run."""
    path = Path(tempfile.mkdtemp(prefix="qsend-install-", dir="/tmp"))
    path.chmod(0o755)
    yield install(path / "venv")
    shutil.rmtree(path)


@pytest.fixture
def tree(installation: Installation, open_tmp: Path) -> Iterator[Tree]:
    """A tree of the caller's kind: the real accounts for root, else single-user."""
    with Tree(installation, open_tmp / "home") as made:
        yield made


@pytest.fixture
def user_tree(installation: Installation, open_tmp: Path) -> Iterator[Tree]:
    """A single-user tree of an ordinary user."""
    with Tree(installation, open_tmp / "home", uid=64900) as made:
        yield made


@pytest.fixture
def login(open_tmp: Path) -> Iterator[str]:
    """A real account of the machine, its home below open_tmp."""
    name = f"qt{secrets.token_hex(4)}"
    home = open_tmp / name
    subprocess.run(
        ["useradd", "-M", "-U", "-d", home, name], check=True, capture_output=True
    )
    try:
        entry = getpwnam(name)
        home.mkdir(mode=0o755)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        yield name
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


@pytest.fixture
def account(login: str) -> Iterator[Account]:
    """The account of `login`; what reaches its mailbox in /var/mail goes with it."""
    made = Account(login)
    yield made
    made.spool.unlink(missing_ok=True)
