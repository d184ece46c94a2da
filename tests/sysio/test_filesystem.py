from __future__ import annotations

import os
from pathlib import Path

import pytest

from qsend.sysio.filesystem import is_without_journal, syncs_links_with_names
from tests.loopdisk import EXT4, EXT4_WITHOUT_JOURNAL, XFS, loop_disks, needs_loop


@needs_loop
@pytest.mark.root
@pytest.mark.parametrize(
    ("kind", "syncs", "lacks_journal"),
    [(EXT4, True, False), (EXT4_WITHOUT_JOURNAL, False, True), (XFS, True, False)],
)
def test_what_is_known_of_file_systems(
    tmp_path: Path, kind: str, syncs: bool, lacks_journal: bool
) -> None:
    with loop_disks(tmp_path) as make:
        device = os.stat(make(kind).where).st_dev
        assert syncs_links_with_names(device) == syncs
        assert is_without_journal(device) == lacks_journal


def test_of_other_file_systems_nothing_is_taken_for_granted() -> None:
    device = os.stat("/dev/shm").st_dev
    assert not syncs_links_with_names(device)
    assert not is_without_journal(device)
