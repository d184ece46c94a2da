"""A maildir as POP3 sessions see it, while others change it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from qsend.core.errors import TempFail
from qsend.sysio import clock
from qsend.sysio.popmaildir import PopMaildir

LONG = "1700000000.M1P1." + "h" * 64


@pytest.fixture
def maildir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add(path: Path, content: str = "x", mtime: int = 1000) -> Path:
    path.write_text(content)
    os.utime(path, (mtime, mtime))
    return path


def text(mailbox: PopMaildir, index: int) -> bytes:
    fd = mailbox.open(index)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def test_messages_are_listed_oldest_first_with_their_sizes(maildir: Path) -> None:
    add(maildir / "new/b", "bb", mtime=2000)
    add(maildir / "cur/c:2,S", "ccc", mtime=1000)
    add(maildir / "new/a", "a", mtime=3000)
    add(maildir / "new/.hidden")
    add(maildir / "tmp/unfinished")
    (maildir / "cur/directory").mkdir()
    os.mkfifo(maildir / "cur/fifo")
    mailbox = PopMaildir()
    found = [(each.path, each.uid, each.size) for each in mailbox.messages]
    assert found == [
        (b"cur/c:2,S", b"c", 3), (b"new/b", b"b", 2), (b"new/a", b"a", 1),
    ]  # fmt: skip


def test_message_of_this_second_is_listed(maildir: Path) -> None:
    add(maildir / "new/x", mtime=clock.now() + 5)
    assert len(PopMaildir().messages) == 1


def test_uid_is_the_unique_part_and_survives_every_change(maildir: Path) -> None:
    add(maildir / "new/1.a.host")
    before = PopMaildir()
    assert before.finish(frozenset())
    (maildir / "cur/1.a.host:2,").rename(maildir / "cur/1.a.host:2,RS")
    assert [each.uid for each in PopMaildir().messages] == [b"1.a.host"]
    assert [each.uid for each in before.messages] == [b"1.a.host"]


def test_names_that_cannot_be_uids_get_one(maildir: Path) -> None:
    for name in (LONG, "sp ace", "\xff".encode("latin-1").decode("latin-1")):
        add(maildir / "new" / name)
    add(maildir / "new/twice")
    add(maildir / "cur/twice:2,S")
    uids = [each.uid for each in PopMaildir().messages]
    assert len(set(uids)) == 5
    assert all(len(uid) == 64 and uid.isalnum() for uid in uids)
    assert [each.uid for each in PopMaildir().messages] == uids


def test_finish_removes_and_moves_to_cur(maildir: Path) -> None:
    for name in ("new/a", "new/b", "cur/c:2,S", "cur/d:2,"):
        add(maildir / name)
    mailbox = PopMaildir()
    at = {each.path: index for index, each in enumerate(mailbox.messages)}
    assert mailbox.finish({at[b"new/b"], at[b"cur/c:2,S"]})
    left = {str(path.relative_to(maildir)) for path in maildir.rglob("*/*")}
    assert left == {"cur/a:2,", "cur/d:2,"}


def test_moving_never_overwrites(maildir: Path) -> None:
    add(maildir / "new/a", "new one")
    add(maildir / "cur/a:2,", "old one")
    assert PopMaildir().finish(frozenset())
    assert (maildir / "new/a").read_text() == "new one"
    assert (maildir / "cur/a:2,").read_text() == "old one"


def test_other_session_that_ends_first_harms_nothing(maildir: Path) -> None:
    for name in ("a", "b", "c"):
        add(maildir / "new" / name, name)
    mine, other = PopMaildir(), PopMaildir()
    assert other.finish({1})
    assert [text(mine, index) for index in (0, 2)] == [b"a", b"c"]
    with pytest.raises(FileNotFoundError):
        mine.open(1)
    assert mine.finish({0, 1})
    left = {str(path.relative_to(maildir)) for path in maildir.rglob("*/*")}
    assert left == {"cur/c:2,"}


def test_message_whose_flags_change_is_found_again(maildir: Path) -> None:
    add(maildir / "cur/a:2,", "a")
    mailbox = PopMaildir()
    (maildir / "cur/a:2,").rename(maildir / "cur/a:2,S")
    assert text(mailbox, 0) == b"a"
    (maildir / "cur/a:2,S").rename(maildir / "cur/a:2,RS")
    assert mailbox.finish({0})
    assert list(maildir.rglob("cur/*")) == []


def test_message_with_the_same_unique_part_is_not_taken_for_another(
    maildir: Path,
) -> None:
    add(maildir / "new/a", "one")
    add(maildir / "cur/a:2,S", "two")
    mailbox = PopMaildir()
    index = [each.path for each in mailbox.messages].index(b"new/a")
    (maildir / "new/a").unlink()
    with pytest.raises(FileNotFoundError):
        mailbox.open(index)
    assert mailbox.finish({index})
    assert (maildir / "cur/a:2,S").read_text() == "two"


def test_message_that_arrives_meanwhile_is_left_alone(maildir: Path) -> None:
    add(maildir / "new/a")
    mailbox = PopMaildir()
    add(maildir / "new/b")
    assert mailbox.finish({0})
    assert [path.name for path in maildir.rglob("*/*")] == ["b"]


def test_file_that_became_a_fifo_holds_nobody_up(maildir: Path) -> None:
    add(maildir / "cur/a:2,")
    mailbox = PopMaildir()
    (maildir / "cur/a:2,").unlink()
    os.mkfifo(maildir / "cur/a:2,")
    with pytest.raises(FileNotFoundError):
        mailbox.open(0)


def test_what_cannot_be_removed_is_told(maildir: Path) -> None:
    add(maildir / "cur/a:2,")
    mailbox = PopMaildir()
    (maildir / "cur/a:2,").unlink()
    (maildir / "cur/a:2,").mkdir()
    assert not mailbox.finish({0})


def test_stale_files_in_tmp_are_cleaned(maildir: Path) -> None:
    old = clock.now() - 40 * 3600
    add(maildir / "tmp/old", mtime=old)
    add(maildir / "tmp/young", mtime=clock.now())
    PopMaildir()
    assert [path.name for path in (maildir / "tmp").iterdir()] == ["young"]


def test_maildir_without_new_cannot_be_listed(maildir: Path) -> None:
    (maildir / "new").rmdir()
    with pytest.raises(TempFail, match="Maildir/new"):
        PopMaildir()


def test_five_thousand_messages_are_listed_and_removed_quickly(maildir: Path) -> None:
    for number in range(5000):
        (maildir / f"new/{number}.P1.h").write_bytes(b"x")
    began = clock.mono()
    mailbox = PopMaildir()
    assert len(mailbox.messages) == 5000
    assert PopMaildir().finish(frozenset())
    assert mailbox.finish(frozenset(range(5000)))
    # A quarter of a second on an idle machine; quadratic work would take minutes.
    assert clock.mono() - began < 15
    assert not any(stat.S_ISREG(p.stat().st_mode) for p in maildir.rglob("*"))
