"""Fixtures of process tests: a home in single-user mode, and a tree of fakes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.procs.family import Opener, Tree, make_home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_home(tmp_path)
    return tmp_path


@pytest.fixture
def tree(home: Path) -> Iterator[Opener]:
    opened: list[Tree] = []

    def start(**options: object) -> Tree:
        made = Tree(home, **options)  # type: ignore[arg-type]
        opened.append(made)
        return made

    yield start
    for made in opened:
        made.close()
