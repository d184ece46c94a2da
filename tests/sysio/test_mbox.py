from __future__ import annotations

import fcntl
import mailbox
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.core.errors import TempFail
from qsend.formats.control import Durability
from qsend.sysio.mbox import Mboxes
from qsend.sysio.messagefile import MessageFile

FROM = b"From s@t Thu Jan 01 00:00:00 1970\n"
PREFIX = FROM + b"Return-Path: <s@t>\nDelivered-To: a@b\n"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def message(tmp_path: Path, content: bytes) -> MessageFile:
    path = tmp_path / "message"
    path.write_bytes(content)
    return MessageFile(os.open(path, os.O_RDONLY))


@pytest.mark.parametrize("durability", list(Durability))
def test_mbox_entries_are_read_back(
    tmp_path: Path, home: int, durability: Durability
) -> None:
    mboxes = Mboxes(durability)
    for body in (b"From x\n>From y", b"last\n"):
        source = message(tmp_path, b"A: b\n\n" + body)
        mboxes.deliver(home, b"./Mailbox", PREFIX, source)
        os.close(source.fd)
    path = tmp_path / "Mailbox"
    assert path.read_bytes() == (
        PREFIX + b"A: b\n\n>From x\n>>From y\n\n" + PREFIX + b"A: b\n\nlast\n\n"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    box = mailbox.mbox(path, create=False)
    entries = list(box)
    assert [entry["A"] for entry in entries] == ["b", "b"]
    assert entries[1].get_payload() == "last\n"
    box.close()


def test_mbox_long_message_keeps_every_line(tmp_path: Path, home: int) -> None:
    lines = b"".join(b"From line %d\n" % n for n in range(20_000))
    source = message(tmp_path, lines)
    Mboxes(Durability.NONE).deliver(home, b"M", FROM, source)
    want = FROM + lines.replace(b"From ", b">From ") + b"\n"
    assert (tmp_path / "M").read_bytes() == want
    os.close(source.fd)


def test_mbox_locked_by_another_process_defers(tmp_path: Path, home: int) -> None:
    path = tmp_path / "Mailbox"
    path.write_bytes(b"before\n")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl,sys; f=open(sys.argv[1],'ab'); fcntl.flock(f,2);"
            "print('locked', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    source = message(tmp_path, b"x\n")
    with holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(TempFail, match=r"locked for 0\.05 seconds.*#4\.3\.0"):
            Mboxes(Durability.FULL, lock_limit_s=0.05).deliver(
                home, b"./Mailbox", PREFIX, source
            )
        assert path.read_bytes() == b"before\n"
        # Released while a delivery waits: it goes on.
        threading.Timer(0.02, holder.stdin.close).start()
        Mboxes(Durability.FULL, lock_limit_s=20).deliver(
            home, b"./Mailbox", PREFIX, source
        )
    assert path.read_bytes() == b"before\n" + PREFIX + b"x\n\n"
    os.close(source.fd)


def test_mbox_lock_held_in_this_process_defers_too(tmp_path: Path, home: int) -> None:
    source = message(tmp_path, b"x\n")
    with (tmp_path / "Mailbox").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TempFail, match="locked"):
            Mboxes(Durability.NONE, lock_limit_s=0).deliver(
                home, b"Mailbox", PREFIX, source
            )
    os.close(source.fd)


def test_mbox_threads_take_turns(tmp_path: Path, home: int) -> None:
    mboxes = Mboxes(Durability.QMAIL)
    source = message(tmp_path, b"A: b\n\n" + b"x\n" * 40_000)

    def work() -> None:
        for _ in range(4):
            mboxes.deliver(home, b"Mailbox", PREFIX, source)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    want = PREFIX + b"A: b\n\n" + b"x\n" * 40_000 + b"\n"
    assert (tmp_path / "Mailbox").read_bytes() == want * 24
    os.close(source.fd)


def test_mbox_write_error_cuts_the_file_back(tmp_path: Path, home: int) -> None:
    path = tmp_path / "Mailbox"
    path.write_bytes(b"before\n")
    source = message(tmp_path, b"x" * 300_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(TempFail, match=r"File too large.*#4\.3\.0"):
            Mboxes(Durability.FULL).deliver(home, b"Mailbox", PREFIX, source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"before\n"
    os.close(source.fd)


def test_mbox_read_error_cuts_the_file_back(tmp_path: Path, home: int) -> None:
    path = tmp_path / "Mailbox"
    path.write_bytes(b"before\n")
    source = MessageFile(home)
    with pytest.raises(TempFail, match="Unable to read the message"):
        Mboxes(Durability.FULL).deliver(home, b"Mailbox", PREFIX, source)
    assert path.read_bytes() == b"before\n"


@pytest.mark.parametrize("path", [b"none/Mailbox", b"directory", b"fifo"])
def test_mbox_that_cannot_be_opened_defers(
    tmp_path: Path, home: int, path: bytes
) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    source = message(tmp_path, b"x\n")
    with pytest.raises(TempFail, match=r"#4\.2\.1"):
        Mboxes(Durability.FULL).deliver(home, path, PREFIX, source)
    os.close(source.fd)


def test_mbox_dev_null_swallows(tmp_path: Path, home: int) -> None:
    source = message(tmp_path, b"x\n")
    Mboxes(Durability.FULL).deliver(home, b"/dev/null", PREFIX, source)
    assert os.listdir(tmp_path) == ["message"]
    os.close(source.fd)


SYNCS = [
    (Durability.FULL, [["file", "directory"], ["file"]]),
    (Durability.QMAIL, [["file"], ["file"]]),
    (Durability.NONE, [[], []]),
]


@pytest.mark.parametrize(("durability", "want"), SYNCS)
def test_mbox_syncs_the_file_and_the_entry_of_a_new_one(
    tmp_path: Path,
    home: int,
    monkeypatch: pytest.MonkeyPatch,
    durability: Durability,
    want: list[list[str]],
) -> None:
    synced: list[str] = []

    def fsync(fd: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        synced.append("directory" if is_directory else "file")

    source = message(tmp_path, b"x\n")
    mboxes = Mboxes(durability)
    for expected in want:
        synced.clear()
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fsync)
            mboxes.deliver(home, b"Mailbox", PREFIX, source)
        assert synced == expected
    os.close(source.fd)


def test_mbox_of_another_owner_is_refused(tmp_path: Path, home: int) -> None:
    path = tmp_path / "Mailbox"
    path.write_bytes(b"before\n")
    source = message(tmp_path, b"x\n")
    mboxes = Mboxes(Durability.NONE)
    with pytest.raises(TempFail, match="not a file of the recipient"):
        mboxes.deliver(home, b"Mailbox", FROM, source, owner=os.geteuid() + 1)
    with pytest.raises(TempFail, match="not a file of the recipient"):
        mboxes.deliver(home, b"/dev/null", FROM, source, owner=os.geteuid())
    assert path.read_bytes() == b"before\n"
    mboxes.deliver(home, b"Mailbox", FROM, source, owner=os.geteuid())
    os.close(source.fd)
    assert path.read_bytes() == b"before\n" + FROM + b"x\n\n"


def openings(path: Path) -> int:
    """How many descriptors of this process are the file's."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    return found.count(str(path))


@pytest.mark.parametrize("is_left", [True, False])
def test_mbox_replaced_while_its_lock_is_waited_for(
    tmp_path: Path, home: int, is_left: bool
) -> None:
    path = tmp_path / "Mailbox"
    path.write_bytes(b"old\n")
    source = message(tmp_path, b"x\n")
    mboxes = Mboxes(Durability.NONE)
    with path.open("ab") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        thread = threading.Thread(
            target=mboxes.deliver, args=(home, b"Mailbox", FROM, source)
        )
        thread.start()
        while openings(path) < 2:
            assert thread.is_alive()
        if is_left:
            (tmp_path / "new").write_bytes(b"new\n")
            (tmp_path / "new").rename(path)
        else:
            path.unlink()
    thread.join()
    os.close(source.fd)
    assert path.read_bytes() == (b"new\n" if is_left else b"") + FROM + b"x\n\n"
