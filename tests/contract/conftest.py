"""The fixture that runs a test in both worlds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.worlds import World, fake_world, real_world
from tests.queues import make_queue


@pytest.fixture(params=["real", "fake"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = real_world(make_queue(tmp_path)) if request.param == "real" else fake_world()
    yield made
    made.queue.close()
    made.cleaner.close()
