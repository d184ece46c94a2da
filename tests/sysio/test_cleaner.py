"""Cleaner on a disk that can lose power: order of steps, failures, levels."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from qsend.core.model import MessId
from qsend.core.states import TRANSITIONS, Do, Fate, State, classify, fate
from qsend.formats.cleanwire import Aside, Foop, Request, Todo
from qsend.formats.control import Durability
from tests.fakedisk import FakeDisk
from tests.fakes import FakeQueue

ENVELOPE = b"u0\0p1\0Fa@x\0Tb@y\0"


def queued(*files: str) -> tuple[FakeQueue, MessId]:
    """A queue with one message in S4, or with exactly `files`, all durable."""
    queue = FakeQueue()
    messid = queue.inject(b"mail", ENVELOPE)
    for name in files:
        if name not in ("mess", "intd", "todo"):
            queue.put(name, messid, b"x")
    for name in ("intd", "todo"):
        if files and name not in files:
            queue.dirs.unlink(str(messid), queue.dirs.fd(name))
    queue.disk.sync_all()
    return queue, messid


def foop(queue: FakeQueue, messid: MessId) -> Foop:
    return Foop(messid=messid, identity=queue.stat_mess(messid))


def todo(_queue: FakeQueue, messid: MessId) -> Todo:
    return Todo(messid=messid)


def aside(_queue: FakeQueue, messid: MessId) -> Aside:
    return Aside(messid=messid, stamp=1, reason=b"why")


def steps(queue: FakeQueue, since: int, messid: MessId) -> list[str]:
    """What was done to the disk, in the words of core/states."""
    kinds = ("mess", "intd", "todo", "info", "local", "remote", "bounce")
    by_node = {queue.disk.node_of(queue.dir_fd(name, messid)): name for name in kinds}
    words = {"unlink": Do.UNLINK, "sync": Do.SYNC_NAME}
    return [
        f"{words[op.kind].value} {by_node[op.node]}" for op in queue.disk.ops[since:]
    ]


@pytest.mark.parametrize(
    ("before", "after", "files", "make"),
    [
        (State.S4, State.S1, (), foop),
        (State.S4, State.S5, ("mess", "intd", "todo", "info"), todo),
        (State.S3, State.S1, ("mess", "intd"), foop),
    ],
)
def test_cleaner_does_exactly_the_steps_of_the_table(
    before: State,
    after: State,
    files: tuple[str, ...],
    make: Callable[[FakeQueue, MessId], Request],
) -> None:
    queue, messid = queued(*files)
    assert classify(queue.present(messid)) is before
    [transition] = [
        each
        for each in TRANSITIONS
        if (each.before, each.after) == (before, after) and "clean" in each.actor
    ]
    # Names that are not there are not unlinked, and their directory not synced.
    absent = {"intd", "todo"} - queue.present(messid)
    want = [str(step) for step in transition.steps if step.target not in absent]
    since = len(queue.disk.ops)
    assert queue.cleaner().work([make(queue, messid)]) == [0]
    assert steps(queue, since, messid) == want
    assert classify(queue.present(messid)) is after


def test_foop_cut_anywhere_leaves_the_message_whole_or_garbage() -> None:
    queue, messid = queued()
    since = len(queue.disk.ops)
    assert queue.cleaner().work([foop(queue, messid)]) == [0]
    for count in range(since, len(queue.disk.ops) + 1):
        assert classify(queue.after_kill(count).present(messid)) is not None
        lost = queue.disk.unsynced(count)
        for kept in ([], lost, lost[:1], lost[1:]):
            found = fate(queue.after_power_cut(count, kept).present(messid))
            assert found in (Fate.PREPROCESS, Fate.SWEEP, Fate.NONE)
    assert fate(queue.after_power_cut().present(messid)) is Fate.SWEEP


def test_todo_answered_is_durable() -> None:
    queue, messid = queued("mess", "intd", "todo", "info")
    assert queue.cleaner().work([todo(queue, messid)]) == [0]
    assert classify(queue.after_power_cut().present(messid)) is State.S5


def test_aside_cut_anywhere_has_every_file_at_least_once() -> None:
    queue, messid = queued("mess", "intd", "todo", "info")
    since = len(queue.disk.ops)
    assert queue.cleaner().work([aside(queue, messid)]) == [0]
    assert queue.move_aside(messid, 1) == {"info"}
    for count in range(since, len(queue.disk.ops) + 1):
        for after in (queue.after_kill(count), queue.after_power_cut(count)):
            contents = list(after.disk.files().values())
            assert b"mail" in contents
            assert ENVELOPE in contents
            assert b"x" in contents
            assert fate(after.present(messid)) in (
                Fate.PREPROCESS,
                Fate.DELIVER,
                Fate.SWEEP,
                Fate.ASIDE,
                Fate.LEFTOVER,
                Fate.NONE,
            )
    kept = {name for name in queue.after_power_cut().disk.files() if "aside" in name}
    assert {name.rpartition("/")[2] for name in kept} == {
        "mess",
        "intd",
        "todo",
        "info",
        "reason",
    }


@pytest.mark.parametrize("level", [Durability.QMAIL, Durability.NONE])
def test_cleaner_below_full_syncs_nothing(level: Durability) -> None:
    queue, messid = queued()
    since = len(queue.disk.ops)
    assert queue.cleaner(level).work([foop(queue, messid)]) == [0]
    assert [op.kind for op in queue.disk.ops[since:]] == ["unlink"] * 3


def test_batch_shares_one_sync_per_directory() -> None:
    queue = FakeQueue()
    messids = [queue.inject(b"mail", ENVELOPE) for _ in range(10)]
    since = len(queue.disk.ops)
    batch = [foop(queue, messid) for messid in messids]
    assert queue.cleaner().work(batch) == [0] * 10
    kinds = [op.kind for op in queue.disk.ops[since:]]
    assert kinds == ["unlink"] * 20 + ["sync"] * 2 + ["unlink"] * 10


def failing(disk: FakeDisk, call: str, path: str, code: int, times: int = 1) -> None:
    """Let the next `times` of this call on this path fail."""
    left = [times]

    def fail(name: str, where: str) -> int:
        if (name, where) != (call, path) or not left[0]:
            return 0
        left[0] -= 1
        return code

    disk.fail = fail


@pytest.mark.parametrize("directory", ["intd", "todo"])
def test_failed_sync_keeps_every_mess_and_is_made_up_for(directory: str) -> None:
    queue, messid = queued()
    cleaner = queue.cleaner()
    request = foop(queue, messid)
    failing(queue.disk, "fsync", directory, errno.EIO)
    assert cleaner.work([request]) == [errno.EIO]
    assert queue.present(messid) == {"mess"}
    since = len(queue.disk.ops)
    # The names are gone already, so nothing changes now; the sync is still owed.
    assert cleaner.work([request]) == [0]
    owed = ["sync directory of intd", "sync directory of todo"]
    assert steps(queue, since, messid) == [
        *owed[("intd", "todo").index(directory) :],
        "unlink mess",
    ]


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("intd/{}", {"mess", "intd", "todo"}),
        ("todo/{}", {"mess", "todo"}),
        ("mess/{part}/{}", {"mess"}),
    ],
)
def test_failed_unlink_is_told_and_stops_that_removal(
    path: str, left: set[str]
) -> None:
    queue, messid = queued()
    other = queue.inject(b"other", ENVELOPE)
    where = path.format(messid, part=messid % 23)
    failing(queue.disk, "unlink", where, errno.EROFS)
    batch = [foop(queue, messid), foop(queue, other)]
    assert queue.cleaner().work(batch) == [errno.EROFS, 0]
    assert queue.present(messid) == left
    assert queue.present(other) == set()


def test_failed_aside_is_told_keeps_all_and_can_be_repeated() -> None:
    queue, messid = queued()
    cleaner = queue.cleaner()
    opened = queue.disk.open_count()
    failing(queue.disk, "fsync", f"aside/{messid}.1", errno.ENOSPC)
    assert cleaner.work([aside(queue, messid)]) == [errno.ENOSPC]
    assert queue.present(messid) == {"mess", "intd", "todo"}
    assert cleaner.work([aside(queue, messid)]) == [0]
    assert queue.present(messid) == set()
    assert f"aside/{messid}.1/mess" in queue.disk.files()
    # Only the directories that are kept for good are open; none of aside's own.
    assert queue.disk.open_count() - opened <= 4


def test_same_number_twice_in_a_batch_is_unlinked_once() -> None:
    queue, messid = queued()
    request = foop(queue, messid)
    calls: list[tuple[str, str]] = []

    def note(name: str, path: str) -> int:
        calls.append((name, path))
        return 0

    queue.disk.fail = note
    assert queue.cleaner().work([request, request]) == [0, 0]
    assert calls.count(("unlink", f"mess/{messid % 23}/{messid}")) == 1


def test_stat_error_is_told_and_nothing_is_removed() -> None:
    queue, messid = queued()
    request = foop(queue, messid)
    failing(queue.disk, "stat", f"mess/{messid % 23}/{messid}", errno.EIO)
    assert queue.cleaner().work([request]) == [errno.EIO]
    assert queue.present(messid) == {"mess", "intd", "todo"}
