from __future__ import annotations

import errno
import mailbox
import os
import re
import resource
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qsend.core.errors import TempFail
from qsend.formats.control import Durability
from qsend.sysio import maildir
from qsend.sysio.durable import finish
from qsend.sysio.maildir import Maildirs, escape_host
from qsend.sysio.messagefile import CHUNK_BYTES, MessageFile

PREFIX = b"Return-Path: <s@t>\nDelivered-To: a@b\n"


@pytest.fixture(params=["unnamed", "named"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds on a file system without unnamed files as well."""
    monkeypatch.setattr(maildir, "syncs_links_with_names", lambda _device: True)
    if request.param == "unnamed":
        return
    real_open = os.open

    def fussy_open(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no unnamed files here")
        return real_open(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", fussy_open)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[int]:
    mailbox.Maildir(tmp_path / "Maildir", create=True)
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def message(tmp_path: Path, content: bytes) -> MessageFile:
    path = tmp_path / "message"
    path.write_bytes(content)
    return MessageFile(os.open(path, os.O_RDONLY))


@pytest.mark.parametrize("durability", list(Durability))
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Subject: x\n\nno last line feed",
        b"A: b\n\n\0\r\n\xff" + b"z" * (3 * CHUNK_BYTES + 1),
    ],
    ids=["empty", "short", "long"],
)
def test_maildir_delivery_is_read_back_unchanged(
    tmp_path: Path, home: int, durability: Durability, body: bytes
) -> None:
    source = message(tmp_path, body)
    finish(Maildirs(durability).deliver(home, b"./Maildir/", PREFIX, source))
    box = mailbox.Maildir(tmp_path / "Maildir", create=False)
    (key,) = box.keys()
    assert box.get_bytes(key) == PREFIX + body
    assert not list((tmp_path / "Maildir/tmp").iterdir())
    (path,) = (tmp_path / "Maildir/new").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    os.close(source.fd)


def test_maildir_names_are_unique_and_safe(tmp_path: Path, home: int) -> None:
    maildirs = Maildirs(Durability.NONE, host="a/b:c")
    source = message(tmp_path, b"x\n")
    for _ in range(50):
        finish(maildirs.deliver(home, b"Maildir", b"", source))
    names = os.listdir(tmp_path / "Maildir/new")
    assert len(set(names)) == 50
    want = rf"\d+\.M\d{{6}}Q\d+P{os.getpid()}R[0-9a-f]{{8}}\.a\\057b\\072c"
    for name in names:
        assert re.fullmatch(want, name), name
    os.close(source.fd)


@pytest.mark.parametrize(
    ("host", "want"), [("", b"localhost"), ("h" * 99, b"h" * 64), ("a.b", b"a.b")]
)
def test_escape_host(host: str, want: bytes) -> None:
    assert escape_host(host) == want


def test_maildir_threads_share_one_directory(tmp_path: Path, home: int) -> None:
    maildirs = Maildirs(Durability.FULL)
    source = message(tmp_path, b"A: b\n\nx\n")

    def work() -> None:
        for _ in range(20):
            finish(maildirs.deliver(home, b"./Maildir/", PREFIX, source))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    box = mailbox.Maildir(tmp_path / "Maildir", create=False)
    assert [box.get_bytes(key) for key in box.iterkeys()] == [
        PREFIX + b"A: b\n\nx\n"
    ] * 160
    os.close(source.fd)


FAULTS = [
    ("nothing", b"./None/", "#4.2.1"),
    ("file", b"./message/", "#4.2.1"),
    ("tmp", b"./Maildir/", "#4.3.0"),
    ("new", b"./Maildir/", "#4.3.0"),
]


@pytest.mark.parametrize(("fault", "path", "code"), FAULTS)
@pytest.mark.parametrize("durability", [Durability.FULL, Durability.QMAIL])
def test_maildir_that_is_not_one_defers_and_leaves_nothing(
    tmp_path: Path,
    home: int,
    fault: str,
    path: bytes,
    code: str,
    durability: Durability,
) -> None:
    source = message(tmp_path, b"x\n")
    if fault in ("tmp", "new"):
        (tmp_path / "Maildir" / fault).rmdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TempFail, match=code):
        finish(Maildirs(durability).deliver(home, path, PREFIX, source))
    assert len(os.listdir("/proc/self/fd")) == before
    assert not [p for p in (tmp_path / "Maildir").rglob("*") if p.is_file()]
    os.close(source.fd)


def test_maildir_write_error_defers_and_leaves_nothing(
    tmp_path: Path, home: int
) -> None:
    source = message(tmp_path, b"x" * 300_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(TempFail, match="File too large"):
            finish(Maildirs(Durability.FULL).deliver(home, b"Maildir", PREFIX, source))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [p for p in (tmp_path / "Maildir").rglob("*") if p.is_file()]
    os.close(source.fd)


def test_maildir_unreadable_message_defers_and_leaves_nothing(
    tmp_path: Path, home: int
) -> None:
    source = MessageFile(os.open(tmp_path, os.O_RDONLY))
    with pytest.raises(TempFail, match="Unable to read the message"):
        finish(Maildirs(Durability.FULL).deliver(home, b"Maildir", PREFIX, source))
    assert not [p for p in (tmp_path / "Maildir").rglob("*") if p.is_file()]
    os.close(source.fd)


def kind(fd: int) -> str:
    return "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"


SYNCS = [
    (Durability.FULL, ["sync file", "link", "sync directory"]),
    (Durability.QMAIL, ["sync file", "link"]),
    (Durability.NONE, ["link"]),
]


@pytest.mark.parametrize(("durability", "want"), SYNCS)
def test_maildir_syncs_before_and_after_the_link(
    tmp_path: Path,
    home: int,
    monkeypatch: pytest.MonkeyPatch,
    durability: Durability,
    want: list[str],
) -> None:
    steps: list[str] = []
    real_link = os.link  # noqa: TID251 - to see when it is called

    def link(*args: Any, **options: Any) -> None:
        steps.append("link")
        real_link(*args, **options)

    source = message(tmp_path, b"x\n")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda fd: steps.append(f"sync {kind(fd)}"))
        patched.setattr(os, "link", link)
        finish(Maildirs(durability).deliver(home, b"Maildir", PREFIX, source))
    assert steps == want
    os.close(source.fd)


@pytest.mark.parametrize(("failing", "stored"), [("file", 0), ("directory", 1)])
def test_maildir_sync_error_defers(
    tmp_path: Path,
    home: int,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    stored: int,
) -> None:
    def fsync(fd: int) -> None:
        if kind(fd) == failing:
            raise OSError(errno.EIO, "broken disk")

    source = message(tmp_path, b"x\n")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(TempFail, match=r"Input/output error|broken disk"):
            finish(Maildirs(Durability.FULL).deliver(home, b"Maildir", PREFIX, source))
    assert len(os.listdir(tmp_path / "Maildir/new")) == stored
    assert os.listdir(tmp_path / "Maildir/tmp") == []
    os.close(source.fd)


def test_maildir_name_that_is_taken_is_passed_over(
    tmp_path: Path, home: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    maildirs = Maildirs(Durability.NONE)
    names = iter([b"taken", b"taken", b"free"])
    monkeypatch.setattr(maildirs, "_name", lambda: next(names))
    for folder in ("tmp", "new"):
        (tmp_path / "Maildir" / folder / "taken").write_text("another's")
    source = message(tmp_path, b"x\n")
    finish(maildirs.deliver(home, b"Maildir", b"", source))
    assert (tmp_path / "Maildir/new/free").read_bytes() == b"x\n"
    assert (tmp_path / "Maildir/new/taken").read_text() == "another's"
    os.close(source.fd)
