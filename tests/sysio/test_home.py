"""find_home and read_control against real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsend.core.errors import TempFail
from qsend.sysio import home


@pytest.mark.parametrize(
    ("explicit", "environ", "content", "want"),
    [
        ("/x", {"QSEND_HOME": "/y"}, "/z\n", "/x"),
        ("", {"QSEND_HOME": "/y"}, "/z\n", "/y"),
        (None, {"QSEND_HOME": "/y"}, "/z\n", "/y"),
        (None, {"QSEND_HOME": ""}, "/z \nsecond\n", "/z"),
        (None, {}, "/z", "/z"),
        (None, {}, "\n/z\n", "/var/qmail"),
        (None, {}, None, "/var/qmail"),
    ],
)
def test_find_home_takes_the_first_that_is_set(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    explicit: str | None,
    environ: dict[str, str],
    content: str | None,
    want: str,
) -> None:
    file = tmp_path / "home"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(home, "HOME_FILE", str(file))
    assert home.find_home(explicit, environ) == want


def test_find_home_unreadable_file_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "HOME_FILE", str(tmp_path))
    with pytest.raises(TempFail, match="unable to read"):
        home.find_home(None, {})


def test_read_control_gives_content_or_none(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control/me").write_bytes(b"h.example \n\0more")
    assert home.read_control(str(tmp_path), "me") == b"h.example \n\0more"
    assert home.read_control(str(tmp_path), "absent") is None
    assert home.read_control(str(tmp_path / "nohome"), "me") is None


def test_read_control_unreadable_is_temporary(tmp_path: Path) -> None:
    (tmp_path / "control/me").mkdir(parents=True)
    with pytest.raises(TempFail, match=r"control/me: Is a directory"):
        home.read_control(str(tmp_path), "me")


def test_read_control_endless_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control/me").symlink_to("/dev/zero")
    monkeypatch.setattr(home, "FILE_MAX", 1000)
    with pytest.raises(TempFail, match="longer than 1000"):
        home.read_control(str(tmp_path), "me")
