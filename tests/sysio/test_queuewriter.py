"""Writing one message into a real queue: states, modes, stale files, trouble."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qsend.formats.queueexit import QueueExit
from qsend.sysio.queuewriter import BUFFER_MAX, Draft, QueueTrouble, QueueWriter
from tests.injecthome import EMPTY, make_queue, one_account, queue_files

HEAD = b"Received: x\n"


@pytest.fixture(params=["unnamed", "named"])
def writer(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[QueueWriter]:
    """A writer, with O_TMPFILE and without it."""
    writer = QueueWriter(str(make_queue(tmp_path / "home", one_account().qmailq)))
    if request.param == "named":
        writer.files.has_unnamed = False
    yield writer
    writer.close()


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    return tmp_path / "home/queue"


def sealed(writer: QueueWriter, envelope: bytes = b"u1\0p2\0Fa\0Tb\0") -> Draft:
    draft = writer.begin(HEAD)
    draft.write_message(b"body\n")
    draft.write_envelope(envelope)
    files, _ = draft.seal()
    for fd in files:
        os.close(fd)
    return draft


def test_steps_pass_through_qmails_states(writer: QueueWriter, queue: Path) -> None:
    draft = writer.begin(HEAD)
    number = int(draft.messid)
    named = queue_files(queue)
    assert named in (EMPTY, {**EMPTY, "pid": [-1]})
    draft.write_message(b"body\n")
    draft.write_envelope(b"u1\0p2\0Fa\0Tb\0")
    assert queue_files(queue) == named
    files, dirs = draft.seal()
    assert queue_files(queue) == {**EMPTY, "mess": [number], "intd": [number]}
    assert dirs == [writer.dirs.of("mess", draft.messid), writer.intd_fd]
    for fd in files:
        os.close(fd)
    assert draft.publish() == [writer.todo_fd]
    draft.discard()
    mess = queue / f"mess/{number % 23}/{number}"
    todo, intd = queue / f"todo/{number}", queue / f"intd/{number}"
    assert mess.stat().st_ino == number
    assert mess.read_bytes() == b"Received: x\nbody\n"
    assert todo.read_bytes() == b"u1\0p2\0Fa\0Tb\0"
    assert todo.stat().st_ino == intd.stat().st_ino
    assert queue_files(queue)["pid"] == []


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_files_are_0644_whatever_the_umask(
    writer: QueueWriter, queue: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        draft = sealed(writer)
        draft.publish()
    finally:
        os.umask(before)
    for name in (f"mess/{draft.messid % 23}", "intd", "todo"):
        found = (queue / name / str(draft.messid)).stat()
        assert stat.S_IMODE(found.st_mode) == 0o644
        assert found.st_gid == queue.stat().st_gid


@pytest.mark.root
def test_files_get_the_group_of_the_queue(tmp_path: Path) -> None:
    queue = make_queue(tmp_path / "home", one_account().qmailq)
    for path in [queue, *queue.rglob("*")]:
        os.chown(path, -1, 61234)
    writer = QueueWriter(str(queue))
    draft = sealed(writer)
    draft.publish()
    assert (queue / f"todo/{draft.messid}").stat().st_gid == 61234
    assert (queue / f"mess/{draft.messid % 23}/{draft.messid}").stat().st_gid == 61234
    writer.close()


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_discard_leaves_nothing_at_any_step(
    writer: QueueWriter, queue: Path, steps: int
) -> None:
    draft = writer.begin(HEAD)
    if steps > 0:
        draft.write_message(b"x" * (BUFFER_MAX + 1))
    if steps > 1:
        # Too long to be held back: the files get their names now (S3).
        draft.write_envelope(b"u1\0p2\0F\0" + b"Tx\0" * BUFFER_MAX)
        assert queue_files(queue)["intd"] == [draft.messid]
    if steps > 2:
        for fd in draft.seal()[0]:
            os.close(fd)
    draft.discard()
    draft.discard()
    assert queue_files(queue) == EMPTY


def test_discard_after_publish_removes_nothing(
    writer: QueueWriter, queue: Path
) -> None:
    draft = sealed(writer)
    draft.publish()
    before = queue_files(queue)
    draft.discard()
    assert queue_files(queue) == before


def test_long_envelope_is_written_whole(writer: QueueWriter, queue: Path) -> None:
    records = [b"Tuser%d@example.org\0" % n for n in range(10000)]
    draft = writer.begin(HEAD)
    draft.write_message(b"m" * 100000)
    for record in records:
        draft.write_envelope(record)
    for fd in draft.seal()[0]:
        os.close(fd)
    draft.publish()
    assert (queue / f"todo/{draft.messid}").read_bytes() == b"".join(records)
    mess = queue / f"mess/{draft.messid % 23}/{draft.messid}"
    assert mess.read_bytes() == HEAD + b"m" * 100000


def test_stale_envelope_goes_durably_before_the_message_has_a_name(
    writer: QueueWriter, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = writer.begin(HEAD)
    for name in ("intd", "todo"):
        (queue / name / str(draft.messid)).write_bytes(b"u1\0p2\0Fold\0Told\0")
    steps: list[str] = []
    real_fsync, real_link = os.fsync, os.link  # noqa: TID251 - wrapped below

    def fsync(fd: int) -> None:
        steps.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        real_fsync(fd)

    def link(*args: object, **kwargs: object) -> None:
        assert queue_files(queue)["todo"] == []
        steps.append("link")
        real_link(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    draft.write_envelope(b"u1\0p2\0Fnew\0")
    for fd in draft.seal()[0]:
        os.close(fd)
    assert steps[:2] == ["sync todo", "link"]
    intd = queue / f"intd/{draft.messid}"
    assert intd.read_bytes() == b"u1\0p2\0Fnew\0"
    draft.publish()
    assert (queue / f"todo/{draft.messid}").read_bytes() == b"u1\0p2\0Fnew\0"


def test_inode_is_reused_without_a_trace_of_the_old_message(
    writer: QueueWriter, queue: Path
) -> None:
    # ext4 gives the inode of the file removed last to the next one; elsewhere
    # the numbers differ, and the test only shows that messages stay apart.
    for round_ in range(20):
        draft = sealed(writer, b"u1\0p2\0F%d\0" % round_)
        draft.publish()
        assert (
            queue / f"todo/{draft.messid}"
        ).read_bytes() == b"u1\0p2\0F%d\0" % round_
        # As a cleaner that lost power would: mess is gone, envelopes are not.
        (queue / f"mess/{draft.messid % 23}/{draft.messid}").unlink()


def codes(step: Callable[[], object]) -> QueueExit:
    with pytest.raises(QueueTrouble) as caught:
        step()
    return caught.value.code


def test_foreign_file_with_our_number_is_kept_and_avoided(
    writer: QueueWriter, queue: Path
) -> None:
    draft = writer.begin(HEAD)
    foreign = queue / f"mess/{draft.messid % 23}/{draft.messid}"
    foreign.write_bytes(b"foreign")
    envelopes = [queue / f"{name}/{draft.messid}" for name in ("intd", "todo")]
    for envelope in envelopes:
        envelope.write_bytes(b"theirs")
    draft.write_envelope(b"u1\0")
    assert codes(draft.seal) == QueueExit.MESS
    draft.discard()
    assert foreign.read_bytes() == b"foreign"
    # In a queue restored from a copy they are that message's.
    assert [envelope.read_bytes() for envelope in envelopes] == [b"theirs"] * 2
    for _ in range(3):
        other = sealed(writer)
        assert other.messid != draft.messid
        other.publish()
    assert queue_files(queue)["pid"] == []


def test_link_to_todo_fails_with_66_and_cleans_up(
    writer: QueueWriter, queue: Path
) -> None:
    draft = sealed(writer)
    (queue / f"todo/{draft.messid}").write_bytes(b"")
    assert codes(draft.publish) == QueueExit.TODO
    draft.discard()
    assert queue_files(queue) == {**EMPTY, "todo": [draft.messid]}


def test_missing_directories_say_which(tmp_path: Path) -> None:
    queue = make_queue(tmp_path / "home", one_account().qmailq)
    writer = QueueWriter(str(queue))
    draft = writer.begin(HEAD)
    (queue / f"mess/{draft.messid % 23}").rmdir()
    assert codes(draft.seal) == QueueExit.MESS
    draft.discard()
    writer.close()
    (queue / "intd").rmdir()
    assert codes(lambda: QueueWriter(str(queue))) == QueueExit.QUEUE
    assert codes(lambda: QueueWriter(str(queue) + "x")) == QueueExit.QUEUE


def test_write_error_is_53(writer: QueueWriter, queue: Path) -> None:
    draft = writer.begin(HEAD)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, draft._mess.fd)
    os.close(full)
    assert codes(lambda: draft.write_message(b"x" * 100000)) == QueueExit.WRITE
    draft.discard()
    assert queue_files(queue) == EMPTY


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A home on a file system of 256 KiB and few inodes."""
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=60", "none", home],
        check=True,
    )
    yield home
    subprocess.run(["umount", home], check=True)


def fill(disk: Path, fillers: list[int]) -> None:
    while True:
        fillers.append(os.open(disk, os.O_TMPFILE | os.O_WRONLY))


@pytest.mark.root
def test_disk_full_is_53_everywhere_and_leaves_nothing(small_disk: Path) -> None:
    queue = make_queue(small_disk, one_account().qmailq)
    writer = QueueWriter(str(queue))
    draft = writer.begin(HEAD)
    assert codes(lambda: draft.write_message(b"x" * (1 << 20))) == QueueExit.WRITE
    draft.discard()
    assert queue_files(queue) == EMPTY
    # No inode left for intd/N, then none for mess/N.
    draft = writer.begin(HEAD)
    fillers: list[int] = []
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        fill(small_disk, fillers)
    assert codes(draft.seal) == QueueExit.WRITE
    draft.discard()
    assert queue_files(queue) == EMPTY
    fillers.append(os.open(small_disk, os.O_TMPFILE | os.O_WRONLY))
    assert codes(lambda: writer.begin(HEAD)) == QueueExit.WRITE
    for fd in fillers:
        os.close(fd)
    sealed(writer).publish()
    writer.close()


def test_free_bytes_is_what_the_file_system_says(writer: QueueWriter) -> None:
    found = os.fstatvfs(writer.todo_fd)
    assert abs(writer.free()[0] - found.f_bavail * found.f_frsize) < 1 << 30
