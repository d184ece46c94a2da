"""The control directory is read whole, bounded, and every trouble is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qsend.core.errors import ConfigError
from qsend.core.family import SQL_MARK
from qsend.formats.controllines import FILE_MAX
from qsend.sysio import sealed
from qsend.sysio.controldir import read_controls, read_for, take_snapshot


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


def test_secrets_of_a_snapshot_are_descriptors_that_nobody_changes(
    control: Path,
) -> None:
    (control / "sqlserver").write_bytes(b"x" * FILE_MAX)
    (control / "smtpauth").write_bytes(b"")
    snapshot = take_snapshot(str(control.parent))
    try:
        assert snapshot.files == {"me": b"mx.example\n"}
        assert set(snapshot.secrets) == {"sqlserver", "smtpauth"}
        (control / "sqlserver").write_bytes(b"other")
        fd = snapshot.secrets["sqlserver"]
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"y", 0)
        for length in (1, FILE_MAX + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, length)
        assert sealed.content(fd) == b"x" * FILE_MAX
        assert snapshot.descriptors_of("send") == {}
        assert set(snapshot.descriptors_of("remote1")) == {"smtpauth"}
    finally:
        snapshot.close()


def test_secrets_that_cannot_be_taken_are_told_and_nothing_stays_open(
    control: Path,
) -> None:
    (control / "smtpauth").write_text("relay:user:password\n")
    (control / "sqlserver").write_bytes(b"x" * (FILE_MAX + 1))
    os.mkfifo(control / "servercert.pem")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ConfigError) as caught:
        take_snapshot(str(control.parent))
    assert [str(fault) for fault in caught.value.faults] == [
        "control/servercert.pem: unreadable: expected a regular file",
        "control/sqlserver: longer than 16777216 bytes",
    ]
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.root
def test_send_alone_needs_to_read_no_secret(open_tmp: Path) -> None:
    directory = open_tmp / "control"
    directory.mkdir()
    (directory / "me").write_text("mx.example\n")
    (directory / "sqlserver").write_text("password hunter2\n")
    (directory / "sqlserver").chmod(0o600)
    os.seteuid(65534)
    try:
        seen = read_for("send", str(open_tmp))
    finally:
        os.seteuid(0)
    assert seen == {"me": b"mx.example\n", SQL_MARK: b""}


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
