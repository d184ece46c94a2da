"""Fixtures every test may use."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dnsserver import dns_server as dns_server


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A temporary directory that every account of the machine may enter."""
    path = Path(tempfile.mkdtemp(prefix="qsend-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need uid 0 are skipped, by name, for everybody else."""
    if os.getuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs uid 0"))
