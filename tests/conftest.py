"""Fixtures every test may use."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dnsserver import dns_server as dns_server
from tests.mariadb import database as database
from tests.mariadb import mariadb as mariadb
from tests.mariadb import own_database as own_database
from tests.mariadb import own_mariadb as own_mariadb
from tests.mariadb import pristine_mariadb as pristine_mariadb


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A temporary directory that every account of the machine may enter."""
    path = Path(tempfile.mkdtemp(prefix="qsend-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """What a program called in this process does to the umask ends with the test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need uid 0 are skipped, by name, for everybody else."""
    if os.getuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs uid 0"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not compared with notqmail, also to who does not ask for skips."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(each.nodeid.startswith("tests/interop/") for each in skipped)
    if count:
        terminalreporter.write_line(
            f"{count} tests with notqmail's own programs were not run: tests/interop"
            " needs root and $NOTQMAIL_HOME (README.md)"
        )
