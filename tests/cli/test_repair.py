"""qsend repair on real queues: owners, locks, words, exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from qsend.cli.main import main
from qsend.core.errors import Fatal
from qsend.core.model import Accounts, MessId
from qsend.formats import paths
from qsend.sysio import queuemaker, repairground
from qsend.sysio.accountmaker import make_accounts
from qsend.sysio.accounts import load_accounts
from qsend.sysio.runlock import REPAIR, lock_queue
from tests.queues import inject, make_queue

ENVELOPE = b"u0\0p1\0Fa@x\0Tb@y\0"


@dataclass
class Place:
    """A home with a queue of the machine's accounts, or of the caller's."""

    home: Path
    accounts: Accounts

    @property
    def queue(self) -> Path:
        return self.home / "queue"

    def message(self, shift: int = 0) -> MessId:
        """A queued message; `shift` is added to its number, its inode stays."""
        messid = inject(self.queue, owner=self.accounts.qmailq)
        number = MessId(messid + shift)
        if shift:
            for old, new in (
                (paths.mess(messid), paths.mess(number)),
                (paths.intd(messid), paths.intd(number)),
                (paths.todo(messid), paths.todo(number)),
            ):
                (self.queue / old).rename(self.queue / new)
        return number

    def files(self) -> dict[str, tuple[int, int, int, int]]:
        """Path to inode, owner, group and mode of everything in the queue."""
        found = {}
        for path in self.queue.rglob("*"):
            at = path.lstat()
            where = str(path.relative_to(self.queue))
            found[where] = (at.st_ino, at.st_uid, at.st_gid, at.st_mode)
        return found

    def repair(self, *options: str) -> int:
        return main(["repair", "--home", str(self.home), *options])


@pytest.fixture
def place(open_tmp: Path) -> Place:
    if os.getuid() == 0:
        make_accounts()
    accounts = load_accounts(single_user=os.getuid() != 0)
    home = open_tmp / "home"
    home.mkdir()
    (home / "run").mkdir()
    make_queue(home, accounts)
    return Place(home, accounts)


def test_healthy_queue_has_nothing_to_do(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.message()
    before = place.files()
    assert place.repair() == 0
    assert place.repair("--dry-run") == 0
    assert place.files() == before
    assert capsys.readouterr().out == f"{place.queue}: nothing to do\n" * 2


def test_dry_run_says_what_the_repair_then_does(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    number = place.message(1_000_000)
    target = number - 1_000_000
    (place.queue / "todo/README").touch()
    (place.queue / "lock/tcpto").unlink()
    before = place.files()
    assert place.repair("--dry-run") == 1
    assert place.files() == before
    said = capsys.readouterr().out
    assert said.splitlines()[:-1] == [
        "mend queue/lock/tcpto: expected a file: No such file or directory",
        f"renumber {number} to {target} (intd todo mess)",
        "note: todo/README is no queue file: left alone",
    ]
    assert said.splitlines()[-1].endswith("dry run, nothing was changed")
    assert place.repair() == 0
    assert capsys.readouterr().out.splitlines() == said.splitlines()[:-1]
    assert queuemaker.verify(str(place.home), place.accounts) == []
    assert (place.queue / paths.todo(MessId(target))).read_bytes() == ENVELOPE
    assert (place.queue / paths.mess(MessId(target))).stat().st_ino == target
    assert not (place.queue / REPAIR).exists()
    assert place.repair("--dry-run") == 0


def test_json_has_the_same_facts(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    number = place.message(1_000_000)
    orphan = inject(place.queue, envelope=None, owner=place.accounts.qmailq)
    assert place.repair("--dry-run", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["dry_run"] is True
    assert told["renumber"] == [
        {
            "messid": number,
            "to": number - 1_000_000,
            "paths": [
                paths.intd(number),
                paths.todo(number),
                paths.mess(number),
            ],
        }
    ]
    assert told["kept"] == [orphan]
    assert place.repair("--orphans", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["remove"] == [{"messid": orphan, "paths": [paths.mess(orphan)]}]
    assert not (place.queue / paths.mess(orphan)).exists()


@pytest.mark.root
def test_owners_and_modes_are_mended_and_any_group_is_fine_where_qmail_leaves_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    messid = place.message()
    foreign = place.message()
    for name in (paths.mess(foreign), paths.intd(foreign)):
        os.chown(place.queue / name, place.accounts.qmailq.uid, 12345)
    info = place.queue / paths.info(messid)
    info.write_bytes(b"Fa@x\0")
    info.chmod(0o4644)
    os.chown(place.queue / paths.mess(messid), 0, 0)
    (place.queue / paths.mess(messid)).chmod(0o600)
    (place.queue / "mess/3").chmod(0o700)
    assert place.repair() == 0
    said = capsys.readouterr().out
    uid, gid = place.accounts.qmails.uid, place.accounts.qmails.gid
    assert f"own info: owner {uid}, group {gid}, mode 0600 for 1 files" in said
    assert "own mess: " in said
    assert "own intd" not in said
    found = place.files()
    owner = place.accounts.qmailq.uid
    mess, other = found[paths.mess(messid)], found[paths.mess(foreign)]
    assert (mess[1], stat.S_IMODE(mess[3])) == (owner, 0o644)
    assert (other[1], other[2]) == (owner, 12345)
    at = found[paths.info(messid)]
    assert (at[1], at[2], stat.S_IMODE(at[3])) == (uid, gid, 0o600)
    assert stat.S_IMODE(found["mess/3"][3]) == 0o750
    assert place.repair("--dry-run") == 0


@pytest.mark.root
def test_file_with_a_name_elsewhere_is_not_given_away(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = place.home / "precious"
    precious.write_text("root's")
    (place.queue / "bounce/457").hardlink_to(precious)
    before = precious.stat()
    place.message()
    (place.queue / paths.info(MessId(458))).hardlink_to(precious)
    assert place.repair() == 0
    capsys.readouterr()
    after = precious.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )


@pytest.mark.root
def test_shared_file_of_a_living_message_is_told(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    messid = place.message()
    precious = place.home / "precious"
    precious.write_bytes(ENVELOPE)
    (place.queue / paths.todo(messid)).unlink()
    (place.queue / paths.todo(messid)).hardlink_to(precious)
    assert place.repair() == 0
    assert (
        f"{paths.todo(messid)} has names outside the queue" in capsys.readouterr().out
    )
    assert precious.stat().st_uid == 0


def test_queue_in_use_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(place.queue / "lock/sendmutex", "a") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        assert place.repair() == 111
        assert place.repair("--dry-run") == 111
    assert capsys.readouterr().err.count("qmail-send is already running") == 2


def test_running_enqueue_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(place.home / "run/enqueue.sock"))
        listener.listen()
        assert place.repair() == 111
    assert "`qsend stop --all` first" in capsys.readouterr().err
    # Its socket file, without anybody behind it, is no reason.
    assert place.repair() == 0


def test_missing_directories_and_lock_are_made(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bounce", "info/7", "pid"):
        (place.queue / name).rmdir()
    (place.queue / "lock/sendmutex").unlink()
    assert place.repair("--dry-run") == 1
    assert not (place.queue / "bounce").exists()
    assert place.repair() == 0
    assert queuemaker.verify(str(place.home), place.accounts) == []
    capsys.readouterr()


def test_repair_that_was_cut_off_keeps_the_mail_system_out(place: Place) -> None:
    number = place.message(1_000_000)
    with (
        pytest.raises(KeyboardInterrupt),
        repairground.renaming(str(place.queue)),
    ):
        raise KeyboardInterrupt
    assert stat.S_IMODE((place.queue / "pid").stat().st_mode) == 0o500
    with pytest.raises(Fatal, match="run `qsend repair` again"):
        lock_queue(str(place.queue))
    assert place.repair() == 0
    assert stat.S_IMODE((place.queue / "pid").stat().st_mode) == 0o700
    os.close(lock_queue(str(place.queue)))
    assert (place.queue / paths.todo(MessId(number - 1_000_000))).exists()


def test_mark_of_a_repair_with_nothing_left_to_do_is_removed(place: Place) -> None:
    (place.queue / REPAIR).touch()
    assert place.repair() == 0
    os.close(lock_queue(str(place.queue)))


def test_home_without_a_queue_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["repair", "--home", str(tmp_path)]) == 100
    assert "has no queue" in capsys.readouterr().err
