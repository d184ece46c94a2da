from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qsend.core.dotqmail import Owner
from qsend.core.errors import PermFail, TempFail
from qsend.core.model import Ownership, User
from qsend.sysio import dotqmailfile
from qsend.sysio.dotqmailfile import Chosen, choose, find_owner, open_home

PATRN = 0o002


@pytest.fixture
def home(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH)
    before = len(os.listdir("/proc/self/fd"))
    yield fd
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def user(
    home: Path, *, ownership: Ownership = Ownership.UID, uid: int | None = None
) -> User:
    return User(
        name=b"u",
        uid=os.getuid() if uid is None else uid,
        gid=os.getgid(),
        home=os.fsencode(home),
        dash=b"",
        ext=b"",
        ownership=ownership,
    )


def test_open_home_takes_the_users_own(tmp_path: Path) -> None:
    fd = open_home(user(tmp_path), PATRN)
    assert os.fstat(fd).st_ino == tmp_path.stat().st_ino
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_open_home_of_another_is_refused_unless_trusted(tmp_path: Path) -> None:
    other = os.getuid() + 1
    with pytest.raises(TempFail, match="another user"):
        open_home(user(tmp_path, uid=other), PATRN)
    os.close(open_home(user(tmp_path, uid=other, ownership=Ownership.TRUSTED), PATRN))


def test_open_home_of_a_mailbox_row_needs_the_group_too(tmp_path: Path) -> None:
    fits = user(tmp_path, ownership=Ownership.UID_GID)
    os.close(open_home(fits, PATRN))
    for other in (replace(fits, gid=fits.gid + 1), replace(fits, uid=fits.uid + 1)):
        with pytest.raises(TempFail, match="another user"):
            open_home(other, PATRN)


@pytest.mark.parametrize(
    ("mode", "patrn", "want"),
    [
        (0o702, 0o002, "#4.7.0"),
        (0o720, 0o022, "#4.7.0"),
        (0o1700, 0o002, "#4.2.1"),
        (0o720, 0o002, None),
        (0o777, 0, None),
    ],
)
def test_open_home_checks_the_mode(
    tmp_path: Path, mode: int, patrn: int, want: str | None
) -> None:
    tmp_path.chmod(mode)
    before = len(os.listdir("/proc/self/fd"))
    if want is None:
        os.close(open_home(user(tmp_path), patrn))
    else:
        with pytest.raises(TempFail, match=want):
            open_home(user(tmp_path), patrn)
    assert len(os.listdir("/proc/self/fd")) == before


def test_open_home_sticky_only_warns_when_asked(tmp_path: Path) -> None:
    tmp_path.chmod(0o1700)
    said: list[str] = []
    os.close(open_home(user(tmp_path), PATRN, said.append))
    assert said == ["Warning: home directory is sticky."]


@pytest.mark.parametrize("name", ["none", "file"])
def test_open_home_that_cannot_be_entered_defers(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TempFail, match=r"#4\.3\.0"):
        open_home(user(tmp_path / name), PATRN)


CHOICES = [
    ({".qmail": "x"}, b"", b"", Chosen(content=b"x", default=None, forward_only=False)),
    ({}, b"", b"", Chosen(content=b"", default=None, forward_only=False)),
    (
        {".qmaildefault": "d"},
        b"",
        b"",
        Chosen(content=b"d", default=b"", forward_only=False),
    ),
    (
        {".qmail-a:b-c": "x", ".qmail-default": "d"},
        b"-",
        b"A.B-C",
        Chosen(content=b"x", default=None, forward_only=False),
    ),
    (
        {".qmail-a-default": "a", ".qmail-default": "d"},
        b"-",
        b"a-X.y",
        Chosen(content=b"a", default=b"X.y", forward_only=False),
    ),
    (
        {".qmail-/x": "s", ".qmail-default": "d"},
        b"-/",
        b"X",
        Chosen(content=b"s", default=None, forward_only=False),
    ),
]


@pytest.mark.parametrize(("files", "dash", "ext", "want"), CHOICES)
def test_choose_takes_the_first_that_exists(
    tmp_path: Path,
    home: int,
    files: dict[str, str],
    dash: bytes,
    ext: bytes,
    want: Chosen,
) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    assert choose(home, dash, ext, PATRN) == want


def test_choose_finds_no_mailbox(home: int) -> None:
    with pytest.raises(PermFail, match=r"#5\.1\.1"):
        choose(home, b"-", b"nobody", PATRN)


def test_choose_passes_over_what_is_no_file(tmp_path: Path, home: int) -> None:
    (tmp_path / ".qmail-a").mkdir()
    os.mkfifo(tmp_path / ".qmail-default")
    with pytest.raises(PermFail):
        choose(home, b"-", b"a", PATRN)
    (tmp_path / ".qmail-b").symlink_to("loop")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(PermFail):
        choose(home, b"-", b"b", PATRN)
    with pytest.raises(PermFail):
        choose(home, b"-", b"x" * 300, PATRN)


def test_choose_follows_a_users_link(tmp_path: Path, home: int) -> None:
    (tmp_path / "real").write_text("r")
    (tmp_path / ".qmail").symlink_to("real")
    assert choose(home, b"", b"", PATRN).content == b"r"


@pytest.mark.parametrize(
    ("mode", "want"), [(0o602, "#4.7.0"), (0o600, None), (0o620, None)]
)
def test_choose_checks_the_mode_of_the_file(
    tmp_path: Path, home: int, mode: int, want: str | None
) -> None:
    path = tmp_path / ".qmail"
    path.write_text("x")
    path.chmod(mode)
    if want is None:
        assert not choose(home, b"", b"", PATRN).forward_only
    else:
        with pytest.raises(TempFail, match=want):
            choose(home, b"", b"", PATRN)


def test_choose_sees_the_execute_bit(tmp_path: Path, home: int) -> None:
    path = tmp_path / ".qmail"
    path.write_text("x")
    path.chmod(0o700)
    assert choose(home, b"", b"", PATRN).forward_only
    path.chmod(0o611)
    assert not choose(home, b"", b"", PATRN).forward_only


@pytest.mark.parametrize(
    "code", [errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ESTALE]
)
def test_choose_trouble_with_one_name_is_temporary(
    home: int, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def trouble(*_args: object, **_kwargs: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", trouble)
        patched.setattr(os, "stat", trouble)
        with pytest.raises(TempFail, match=os.strerror(code)):
            choose(home, b"-", b"x", PATRN)
        with pytest.raises(TempFail, match=os.strerror(code)):
            find_owner(home, b"-", b"x")


def test_choose_refuses_an_endless_file(tmp_path: Path, home: int) -> None:
    with (tmp_path / ".qmail").open("wb") as file:
        file.truncate(dotqmailfile.DOTQMAIL_MAX + 1)
    with pytest.raises(TempFail, match="too long"):
        choose(home, b"", b"", PATRN)


@pytest.mark.parametrize(
    ("names", "want"),
    [
        ([], Owner.NONE),
        ([".qmail-list-owner-default"], Owner.NONE),
        ([".qmail-list-owner"], Owner.PLAIN),
        ([".qmail-list-owner", ".qmail-list-owner-default"], Owner.VERP),
    ],
)
def test_find_owner_beside_the_full_extension(
    tmp_path: Path, home: int, names: list[str], want: Owner
) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert find_owner(home, b"-", b"List") is want
