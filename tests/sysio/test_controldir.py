"""The control directory is read whole, bounded, and every trouble is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qsend.core.errors import ConfigError
from qsend.formats.control import FILE_MAX
from qsend.sysio.controldir import read_controls


@pytest.fixture
def control(tmp_path: Path) -> Path:
    directory = tmp_path / "control"
    directory.mkdir()
    (directory / "me").write_bytes(b"mx.example\n")
    return directory


def faults(home: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_controls(str(home))
    return [str(fault) for fault in caught.value.faults]


def test_regular_files_are_read_and_others_left_out(control: Path) -> None:
    (control / "empty").touch()
    (control / "link").symlink_to("me")
    (control / ".me.swp").write_text("x")
    (control / "me~").write_text("x")
    (control / "morercpthosts.d").mkdir()
    with (control / "morercpthosts.cdb").open("wb") as file:
        file.truncate(FILE_MAX + 1)
    os.mkfifo(control / "pipe")
    assert read_controls(str(control.parent)) == {
        "me": b"mx.example\n",
        "empty": b"",
        "link": b"mx.example\n",
    }


def test_every_unreadable_file_is_told(control: Path) -> None:
    (control / "locals").symlink_to("nowhere")
    with (control / "big").open("wb") as file:
        file.truncate(FILE_MAX + 1)
    os.mkfifo(control / "helohost")
    (control / "patrn").mkdir()
    assert faults(control.parent) == [
        "control/big: longer than 16777216 bytes",
        "control/helohost: unreadable: expected a regular file",
        "control/locals: unreadable: No such file or directory",
        "control/patrn: unreadable: expected a regular file",
    ]


def test_longest_file_is_still_read(control: Path) -> None:
    with (control / "big").open("wb") as file:
        file.truncate(FILE_MAX)
    assert len(read_controls(str(control.parent))["big"]) == FILE_MAX


def test_missing_directory_is_a_fault(tmp_path: Path) -> None:
    assert faults(tmp_path) == ["control: unreadable: No such file or directory"]


@pytest.mark.root
def test_file_without_read_permission_is_a_fault(open_tmp: Path) -> None:
    directory = open_tmp / "control"
    directory.mkdir()
    secret = directory / "me"
    secret.write_text("mx.example")
    secret.chmod(0)
    os.seteuid(65534)
    try:
        assert faults(open_tmp) == ["control/me: unreadable: Permission denied"]
    finally:
        os.seteuid(0)
