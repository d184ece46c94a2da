"""Fixtures of whole trees."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tree.harness import Installation, Tree, install


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
