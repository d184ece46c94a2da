from __future__ import annotations

import os
from pathlib import Path

import pytest

from qsend.sysio.filesystem import is_without_journal, syncs_links_with_names
from tests.loopdisk import loop_disks, needs_loop


@needs_loop
@pytest.mark.root
def test_ext4_syncs_links_with_names_when_it_has_a_journal(tmp_path: Path) -> None:
    with loop_disks(tmp_path) as make:
        with_one = os.stat(make(journal=True).where).st_dev
        without = os.stat(make(journal=False).where).st_dev
        assert syncs_links_with_names(with_one)
        assert not is_without_journal(with_one)
        assert not syncs_links_with_names(without)
        assert is_without_journal(without)


def test_of_other_file_systems_nothing_is_taken_for_granted() -> None:
    device = os.stat("/dev/shm").st_dev
    assert not syncs_links_with_names(device)
    assert not is_without_journal(device)
