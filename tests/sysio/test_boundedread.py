"""Bounded reading takes what there is, no more than it may, and no room besides."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from qsend.sysio.boundedread import read_most


@pytest.mark.parametrize(
    ("most", "read"), [(10, 10), (70_000, 70_000), (90_000, 80_000)]
)
def test_no_more_than_it_may(tmp_path: Path, most: int, read: int) -> None:
    path = tmp_path / "file"
    content = bytes(range(250)) * 320
    path.write_bytes(content)
    with path.open("rb", buffering=0) as file:
        assert read_most(file.fileno(), most) == content[:read]


def test_small_file_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a few words\n")
    with path.open("rb", buffering=0) as file:
        tracemalloc.start()
        try:
            assert read_most(file.fileno(), 16 << 20) == b"a few words\n"
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak_bytes < 1 << 20
