"""Fixtures of tests that run programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.adminhome import admin_home as admin_home
from tests.cli.dotline import DotLine


@pytest.fixture
def line(tmp_path: Path) -> DotLine:
    """A place where programs of dot-qmail lines are run."""
    return DotLine(tmp_path)
