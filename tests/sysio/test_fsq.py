"""Queue where the disk does not do as asked: errors, short writes, leaks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qsend.core.errors import QueueCorrupt
from qsend.core.model import Channel, MessId
from qsend.sysio.fsq import Queue
from tests.fakedisk import FakeDisk
from tests.fakes import FakeQueue
from tests.queues import make_queue

N = MessId(46)


def fail_from(disk: FakeDisk, call: str, nth: int, code: int) -> None:
    """Let the `nth` of these calls, from 1, and all later ones fail."""
    seen = [0]

    def fail(name: str, _path: str) -> int:
        seen[0] += name == call
        return code if name == call and seen[0] >= nth else 0

    disk.fail = fail


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize(
    "create",
    [
        lambda queue: queue.create_info(N, b"a@x", 5),
        lambda queue: queue.create_recips(Channel.REMOTE, N, b"Ta@x\0", 5),
    ],
)
def test_create_on_a_full_disk_leaves_no_half_file(
    create: Callable[[FakeQueue], int], nth: int
) -> None:
    queue = FakeQueue()
    queue.disk.write_most = 2
    fail_from(queue.disk, "write", nth, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        create(queue)
    assert queue.disk.files() == {}
    assert queue.disk.open_count() == 2  # the queue, and the file's directory


@pytest.mark.parametrize(
    ("torn", "kept"),
    [
        (b"", b""),
        (b"<a@x>:\nno\n\n", b"<a@x>:\nno\n\n"),
        (b"<a@x>:\nn", b"<a@x>:\nn\n\n"),
        (b"<a@x>:\nn\0\0\0", b"<a@x>:\nn\n\n"),
        (b"\0", b"\n\n"),
    ],
)
def test_append_bounce_ends_what_a_power_cut_left(torn: bytes, kept: bytes) -> None:
    queue = FakeQueue()
    queue.put("bounce", N, torn)
    queue.disk.close(queue.append_bounce(N, b"<b@x>:\nno\n\n"))
    assert queue.read_bounce(N) == kept + b"<b@x>:\nno\n\n"


def test_append_bounce_on_a_full_disk_keeps_only_whole_paragraphs() -> None:
    queue = FakeQueue()
    queue.disk.close(queue.append_bounce(N, b"<a@x>:\nno\n\n"))
    queue.disk.write_most = 4
    fail_from(queue.disk, "write", 3, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        queue.append_bounce(N, b"<b@x>:\nno\n\n")
    assert queue.read_bounce(N) == b"<a@x>:\nno\n\n"
    queue.disk.fail = None
    queue.disk.close(queue.append_bounce(N, b"<b@x>:\nno\n\n"))
    assert queue.read_bounce(N) == b"<a@x>:\nno\n\n<b@x>:\nno\n\n"


def test_short_writes_are_completed() -> None:
    queue = FakeQueue()
    queue.disk.write_most = 1
    queue.disk.close(queue.create_info(N, b"a@x", 5_000_000_000))
    assert queue.read_info(N) == (b"a@x", 5)


@pytest.mark.parametrize(
    "read",
    [
        lambda queue: queue.read_info(N),
        lambda queue: queue.read_recip(Channel.LOCAL, N, 0),
        lambda queue: queue.mark_done(Channel.LOCAL, N, [99]),
        lambda queue: queue.mark_done(Channel.LOCAL, N, [0, 1, 99]),
    ],
)
def test_damage_does_not_leak_descriptors(read: Callable[[FakeQueue], object]) -> None:
    queue = FakeQueue()
    for name in ("info", "local"):
        queue.put(name, N, b"garbage")
    opened = queue.disk.open_count()
    with pytest.raises(QueueCorrupt):
        read(queue)
    assert queue.disk.open_count() == opened


def test_listing_given_up_half_way_closes_its_descriptor() -> None:
    queue = FakeQueue()
    for number in (1, 2, 3):
        queue.put("todo", MessId(number), b"")
    opened = queue.disk.open_count()
    listing = queue.list_todo()
    assert next(listing) == 1
    assert queue.disk.open_count() == opened + 1
    del listing
    assert queue.disk.open_count() == opened


def test_close_gives_back_everything() -> None:
    queue = FakeQueue()
    queue.put("info", N, b"F\0")
    list(queue.list_info())
    assert queue.disk.open_count() > 0
    queue.close()
    assert queue.disk.open_count() == 0


def test_exists_that_cannot_be_known_is_an_error_not_a_no() -> None:
    queue = FakeQueue()
    fail_from(queue.disk, "stat", 1, errno.EIO)
    for ask in (
        queue.todo_exists,
        queue.info_exists,
        queue.bounce_exists,
        queue.stat_mess,
    ):
        with pytest.raises(OSError, match="Input/output"):
            ask(N)
    with pytest.raises(OSError, match="Input/output"):
        queue.due(Channel.LOCAL, N)


def test_info_written_and_synced_survives_a_power_cut_with_its_birth() -> None:
    queue = FakeQueue()
    fd = queue.create_info(N, b"a@x", 7_000_000_000)
    assert queue.after_power_cut().present(N) == set()
    queue.disk.fsync(queue.dir_fd("info", N))
    # The name without the content: what a missing file sync costs.
    with pytest.raises(QueueCorrupt):
        queue.after_power_cut().read_info(N)
    queue.disk.fsync(fd)
    assert queue.after_power_cut().read_info(N) == (b"a@x", 7)
    queue.disk.close(fd)


def to_link(path: Path) -> None:
    secret = path.parents[3] / "secret"
    secret.write_bytes(b"Fsecret@x\0")
    path.symlink_to(secret)


def to_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [to_link, to_fifo])
def test_links_and_fifos_are_damage_and_never_followed_or_waited_for(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = make_queue(tmp_path)
    for name in ("info", "mess", "remote"):
        spoil(path / f"{name}/0/46")
    queue = Queue(str(path))
    for ask in (queue.read_info, queue.open_mess):
        with pytest.raises(QueueCorrupt, match="not a regular file"):
            ask(N)
    for change in (
        lambda: queue.mark_done(Channel.REMOTE, N, [0]),
        lambda: queue.read_recips(Channel.REMOTE, N),
    ):
        with pytest.raises(QueueCorrupt, match="not a regular file"):
            change()
    queue.close()


def stale_after(prepare: Callable[[FakeQueue], object]) -> set[str]:
    """What is removed for N as a new message, of a file that a hand put there."""
    queue = FakeQueue()
    prepare(queue)
    queue.put("bounce", N, b"<old@x>:\nno\n\n")
    return queue.unlink_stale(N)


def write_info(queue: FakeQueue) -> None:
    queue.know_own([])
    queue.close_fd(queue.create_info(N, b"a@x", 5))


def test_numbers_without_own_files_are_not_looked_up() -> None:
    assert stale_after(lambda queue: queue.know_own([MessId(45), MessId(47)])) == set()


def test_before_the_own_files_are_known_every_number_is_looked_up() -> None:
    assert stale_after(lambda _: None) == {"bounce"}


def test_numbers_with_own_files_at_the_start_are_looked_up() -> None:
    numbers = [MessId(number) for number in (99, 46, 3)]
    assert stale_after(lambda queue: queue.know_own(numbers)) == {"bounce"}


def test_numbers_whose_files_were_written_since_are_looked_up() -> None:
    assert stale_after(write_info) == {"info/0", "bounce"}


def test_numbers_whose_message_has_ended_are_not_looked_up() -> None:
    def end(queue: FakeQueue) -> None:
        write_info(queue)
        queue.unlink_info(N)

    assert stale_after(end) == set()


@pytest.mark.parametrize(
    "write",
    [
        lambda queue: queue.create_recips(Channel.LOCAL, N, b"Ta@x\0", 5),
        lambda queue: queue.append_bounce(N, b"<a@x>:\nno\n\n"),
    ],
)
def test_each_kind_of_own_file_is_known(write: Callable[[FakeQueue], int]) -> None:
    def prepare(queue: FakeQueue) -> None:
        queue.know_own([])
        queue.close_fd(write(queue))

    assert "bounce" in stale_after(prepare)
