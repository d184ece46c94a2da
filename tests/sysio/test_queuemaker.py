"""The queue tree on a real disk: made, mended, and every difference reported."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from qsend.core.errors import Fatal
from qsend.core.model import Account, Accounts
from qsend.formats.layout import ENTRIES
from qsend.sysio import queuemaker
from tests.queues import own_accounts, separate_accounts


def everything(queue: Path) -> list[str]:
    return sorted(str(path.relative_to(queue)) for path in queue.rglob("*"))


def test_create_makes_exactly_the_layout_and_verify_agrees(tmp_path: Path) -> None:
    queuemaker.create(str(tmp_path), own_accounts())
    want = {path for entry in ENTRIES for path in entry.paths()} - {"."}
    assert everything(tmp_path / "queue") == sorted(want)
    assert queuemaker.verify(str(tmp_path), own_accounts()) == []


@pytest.mark.root
def test_create_as_root_gives_each_entry_its_owner(tmp_path: Path) -> None:
    accounts = separate_accounts()
    queuemaker.create(str(tmp_path), accounts)
    found = os.stat(tmp_path / "queue/info/22")
    assert (found.st_uid, found.st_gid) == (accounts.qmails.uid, accounts.qmailq.gid)
    found = os.stat(tmp_path / "queue/lock/tcpto")
    assert (found.st_uid, found.st_size) == (accounts.qmailr.uid, 1024)
    found = os.stat(tmp_path / "queue/lock/trigger")
    assert stat.S_ISFIFO(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o622
    assert queuemaker.verify(str(tmp_path), accounts) == []


def test_create_twice_keeps_contents_and_mends_modes(tmp_path: Path) -> None:
    accounts = own_accounts()
    queuemaker.create(str(tmp_path), accounts)
    kept = tmp_path / "queue/mess/3/26"
    kept.write_bytes(b"mail")
    (tmp_path / "queue/todo").chmod(0o777)
    (tmp_path / "queue/lock/tcpto").write_bytes(b"x" * 16)
    queuemaker.create(str(tmp_path), accounts)
    assert kept.read_bytes() == b"mail"
    assert (tmp_path / "queue/lock/tcpto").read_bytes() == b"x" * 16 + b"\0" * 1008
    assert queuemaker.verify(str(tmp_path), accounts) == []


def test_create_ignores_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        queuemaker.create(str(tmp_path), own_accounts())
    finally:
        os.umask(before)
    assert queuemaker.verify(str(tmp_path), own_accounts()) == []


def to_link(path: Path) -> None:
    """Code that follows the link may only spoil a directory of this test."""
    path.rmdir()
    elsewhere = path.parents[2] / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    path.symlink_to(elsewhere)


def to_second_name(path: Path) -> None:
    path.with_name("other").hardlink_to(path)


def to_file(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("path", "spoil", "match"),
    [
        ("queue/mess/4", to_link, "queue/mess/4"),
        ("queue/lock/tcpto", to_second_name, "has 2 names"),
        ("queue/lock/trigger", to_file, "is not a fifo"),
    ],
)
def test_create_refuses_what_is_not_plainly_its_own(
    tmp_path: Path, path: str, spoil: Callable[[Path], None], match: str
) -> None:
    queuemaker.create(str(tmp_path), own_accounts())
    spoil(tmp_path / path)
    with pytest.raises(Fatal, match=match):
        queuemaker.create(str(tmp_path), own_accounts())
    elsewhere = tmp_path / "elsewhere"
    assert not elsewhere.exists() or elsewhere.stat().st_mode & 0o7777 == 0o700


def test_create_without_home_is_fatal_and_names_it(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="nohome"):
        queuemaker.create(str(tmp_path / "nohome"), own_accounts())


@pytest.mark.parametrize(
    ("spoil", "file", "problem"),
    [
        (lambda q: (q / "bounce").rmdir(), "queue/bounce", "No such file"),
        (lambda q: (q / "intd").chmod(0o755), "queue/intd", "mode 0700, found 0755"),
        (
            lambda q: to_file(q / "lock/trigger"),
            "queue/lock/trigger",
            "expected a fifo",
        ),
        (
            lambda q: (q / "lock/tcpto").write_bytes(b""),
            "queue/lock/tcpto",
            "expected 1024 bytes, found 0",
        ),
        (lambda q: (q / "info/23").mkdir(), "queue/info/23", "only 0 to 22"),
        (lambda q: to_link(q / "mess/9"), "queue/mess/9", "expected a directory"),
    ],
)
def test_verify_reports_each_difference(
    tmp_path: Path, spoil: Callable[[Path], None], file: str, problem: str
) -> None:
    queuemaker.create(str(tmp_path), own_accounts())
    spoil(tmp_path / "queue")
    faults = queuemaker.verify(str(tmp_path), own_accounts())
    assert [fault.file for fault in faults] == [file]
    assert problem in faults[0].problem


def test_verify_of_missing_queue_reports_every_entry(tmp_path: Path) -> None:
    faults = queuemaker.verify(str(tmp_path), own_accounts())
    assert len(faults) == sum(len(entry.paths()) for entry in ENTRIES)


def test_verify_compares_owners_with_the_accounts_given(tmp_path: Path) -> None:
    own = own_accounts()
    queuemaker.create(str(tmp_path), own)
    strange = Account(uid=own.root.uid + 12345, gid=own.root.gid)
    other = Accounts(
        alias=own.alias,
        qmaild=own.qmaild,
        qmaill=own.qmaill,
        qmailp=own.qmailp,
        qmailq=own.qmailq,
        qmailr=strange,
        qmails=own.qmails,
        root=own.root,
    )
    faults = queuemaker.verify(str(tmp_path), other)
    assert [fault.file for fault in faults] == ["queue/lock/tcpto"]
    assert f"expected owner {strange.uid}" in faults[0].problem


def test_verify_messages_finds_foreign_misplaced_and_renumbered_files(
    tmp_path: Path,
) -> None:
    queuemaker.create(str(tmp_path), own_accounts())
    queue = tmp_path / "queue"
    (queue / "todo/README").write_bytes(b"")
    (queue / "info/3/4").write_bytes(b"")
    (queue / "local/5/core").write_bytes(b"")
    good = queue / "pid/new"
    good.write_bytes(b"")
    number = good.stat().st_ino
    good.rename(queue / f"mess/{number % 23}/{number}")
    (queue / "mess/1/1").write_bytes(b"")
    faults = queuemaker.verify_messages(str(tmp_path), own_accounts())
    assert [fault.file for fault in faults] == [
        "queue/todo/README",
        "queue/mess/1/1",
        "queue/info/3/4",
        "queue/local/5/core",
    ]
    assert "inode" in faults[1].problem
    assert "info/4" in faults[2].problem


def test_verify_messages_stops_at_its_bound(tmp_path: Path) -> None:
    queuemaker.create(str(tmp_path), own_accounts())
    for number in range(queuemaker.FAULTS_MAX + 5):
        (tmp_path / f"queue/todo/x{number}").write_bytes(b"")
    faults = queuemaker.verify_messages(str(tmp_path), own_accounts())
    assert len(faults) == queuemaker.FAULTS_MAX


@pytest.mark.root
def test_verify_messages_finds_owners_types_and_privileged_files(
    tmp_path: Path,
) -> None:
    queuemaker.create(str(tmp_path), own_accounts())
    queue = tmp_path / "queue"
    (queue / "bounce/1").write_bytes(b"")
    os.chown(queue / "bounce/1", 64999, -1)
    (queue / "todo/2").mkdir()
    (queue / "info/3/3").write_bytes(b"")
    (queue / "info/3/3").chmod(0o4600)
    (queue / "local/4/4").symlink_to("/etc/passwd")
    faults = queuemaker.verify_messages(str(tmp_path), own_accounts())
    own = own_accounts().qmails.uid
    assert [str(fault) for fault in faults] == [
        "queue/todo/2: expected a file, found something else",
        f"queue/bounce/1: expected owner {own}, found 64999",
        "queue/info/3/3: is setuid or setgid; nothing of qsend's is",
        "queue/local/4/4: expected a file, found something else",
    ]
