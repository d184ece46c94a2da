"""One suite for the queue on a real disk and on the fake one.

What holds here holds for both, so that crash tests on the fake say something
about the real thing.
"""

from __future__ import annotations

import os

import pytest

from qsend.core.errors import QueueCorrupt
from qsend.core.message import Note
from qsend.core.model import Channel, MessId
from qsend.formats.cleanwire import Todo
from qsend.formats.recips import parse_recips, render_recips
from qsend.sysio.fsq import TODO_MAX
from tests.contract.worlds import World

MESS = b"Received: x\n\nhello\n"
ENVELOPE = b"u0\0p1\0Fa@x\0Tb@y\0"


# what others wrote


def test_read_todo_gives_content_and_time(world: World) -> None:
    messid = world.inject(MESS, ENVELOPE)
    content, mtime_ns = world.queue.read_todo(messid)
    assert content == ENVELOPE
    found = world.calls.stat(str(messid), dir_fd=world.queue.dir_fd("todo"))
    assert mtime_ns == found.st_mtime_ns


def test_read_todo_of_nothing_is_not_found(world: World) -> None:
    with pytest.raises(FileNotFoundError):
        world.queue.read_todo(MessId(77))


def test_read_todo_of_empty_file_is_empty(world: World) -> None:
    messid = world.inject(MESS, b"")
    assert world.queue.read_todo(messid)[0] == b""


def test_todo_is_listed_and_known_until_removed(world: World) -> None:
    messids = {world.inject(MESS, ENVELOPE) for _ in range(3)}
    world.inject(MESS, None)
    assert set(world.queue.list_todo()) == messids
    assert all(world.queue.todo_exists(messid) for messid in messids)
    gone = min(messids)
    assert world.cleaner.work([Todo(messid=gone)]) == [0]
    assert set(world.queue.list_todo()) == messids - {gone}
    assert not world.queue.todo_exists(gone)


def test_open_mess_reads_the_message_and_knows_its_identity(world: World) -> None:
    messid = world.inject(MESS, ENVELOPE)
    fd, identity = world.queue.open_mess(messid)
    assert world.calls.pread(fd, 100, 0) == MESS
    world.calls.close(fd)
    assert identity == world.queue.stat_mess(messid)
    assert identity.size == len(MESS)


def test_list_mess_gives_each_file_with_identity_and_age(world: World) -> None:
    messid = world.inject(MESS, None)
    found = [each for part in range(23) for each in world.queue.list_mess(part)]
    assert [each[0] for each in found] == [messid]
    assert found[0][1] == world.queue.stat_mess(messid)
    stat = world.calls.stat(str(messid), dir_fd=world.queue.dir_fd("mess", messid))
    assert found[0][2] == stat.st_ctime_ns // 10**9


def test_list_mess_is_not_misled_by_an_old_mtime(world: World) -> None:
    messid = world.inject(MESS, None)
    world.calls.utime(
        str(messid), ns=(5 * 10**9,) * 2, dir_fd=world.queue.dir_fd("mess", messid)
    )
    [(_, identity, touched)] = world.queue.list_mess(messid % 23)
    assert identity.mtime_ns == 5 * 10**9
    assert touched > 10**6


# info


@pytest.mark.parametrize("sender", [b"", b"a@x", b"\xe9\n@x"])
def test_info_is_read_back_with_its_birth(world: World, sender: bytes) -> None:
    messid = MessId(457)
    assert not world.queue.info_exists(messid)
    world.done(world.queue.create_info(messid, sender, 123_456_789_012))
    assert world.files()["info/20/457"] == b"F" + sender + b"\0"
    assert world.queue.read_info(messid) == (sender, 123)
    assert world.queue.info_exists(messid)
    assert list(world.queue.list_info()) == [messid]
    assert world.queue.unlink_info(messid)
    assert not world.queue.unlink_info(messid)
    assert not world.queue.info_exists(messid)


def test_notes_on_recipients_are_kept_with_the_sender(world: World) -> None:
    notes = {0: Note(b"a@x"), 7: Note(b"b@x", is_unknown=True)}
    world.done(world.queue.create_info(MessId(9), b"s@t", 5_000_000_000, notes))
    assert world.queue.read_info(MessId(9)) == (b"s@t", 5)
    assert world.queue.read_notes(MessId(9)) == (b"s@t", 5, notes)


def test_create_info_over_a_stale_one_is_refused(world: World) -> None:
    world.put("info", MessId(9), b"Fold\0")
    with pytest.raises(FileExistsError):
        world.queue.create_info(MessId(9), b"new", 1)
    assert world.files()["info/9/9"] == b"Fold\0"


def test_info_that_is_damaged_is_corrupt(world: World) -> None:
    world.put("info", MessId(9), b"")
    with pytest.raises(QueueCorrupt):
        world.queue.read_info(MessId(9))


# local and remote


@pytest.mark.parametrize("channel", Channel)
def test_recips_are_written_marked_and_read(world: World, channel: Channel) -> None:
    messid = MessId(23)
    data, offsets = render_recips([b"a@x", b"bb@y", b"c@z"], {1})
    assert world.queue.due(channel, messid) is None
    world.done(world.queue.create_recips(channel, messid, data, 1000))
    assert world.queue.due(channel, messid) == 1000
    assert world.queue.read_recips(channel, messid) == data
    assert world.queue.read_recip(channel, messid, offsets[2]) == b"c@z"
    world.done(world.queue.mark_done(channel, messid, [offsets[0], offsets[2]]))
    found = list(parse_recips(world.queue.read_recips(channel, messid)))
    assert [is_done for _, is_done, _ in found] == [True, True, True]
    assert world.queue.read_recip(channel, messid, offsets[2]) == b"c@z"
    world.queue.set_due(channel, messid, 2000)
    assert world.queue.due(channel, messid) == 2000
    assert world.queue.unlink_recips(channel, messid)
    assert world.queue.due(channel, messid) is None


def test_channels_of_one_message_are_apart(world: World) -> None:
    world.done(world.queue.create_recips(Channel.LOCAL, MessId(1), b"Ta\0", None))
    assert world.queue.due(Channel.REMOTE, MessId(1)) is None
    assert not world.queue.unlink_recips(Channel.REMOTE, MessId(1))
    assert world.queue.read_recips(Channel.LOCAL, MessId(1)) == b"Ta\0"


@pytest.mark.parametrize("offset", [1, 4, 99])
def test_read_recip_between_records_is_corrupt(world: World, offset: int) -> None:
    world.put("remote", MessId(5), b"Tab\0Xcd\0")
    with pytest.raises(QueueCorrupt):
        world.queue.read_recip(Channel.REMOTE, MessId(5), offset)


def test_mark_done_beyond_the_end_is_corrupt_and_adds_nothing(world: World) -> None:
    world.put("remote", MessId(5), b"Tab\0")
    with pytest.raises(QueueCorrupt):
        world.queue.mark_done(Channel.REMOTE, MessId(5), [4])
    assert world.files()["remote/5/5"] == b"Tab\0"


def test_mark_done_without_file_creates_none(world: World) -> None:
    with pytest.raises(FileNotFoundError):
        world.queue.mark_done(Channel.LOCAL, MessId(5), [0])
    assert world.files() == {}


# bounce


def test_bounce_is_appended_and_read(world: World) -> None:
    messid = MessId(31)
    assert world.queue.read_bounce(messid) is None
    assert not world.queue.bounce_exists(messid)
    with pytest.raises(FileNotFoundError):
        world.queue.open_bounce(messid)
    world.done(world.queue.append_bounce(messid, b"<a@x>:\nno\n\n"))
    world.done(world.queue.append_bounce(messid, b"<b@x>:\nno\n\n"))
    text = b"<a@x>:\nno\n\n<b@x>:\nno\n\n"
    assert world.queue.read_bounce(messid) == text
    assert world.queue.bounce_exists(messid)
    fd, size = world.queue.open_bounce(messid)
    assert world.calls.read(fd, size) == text
    world.calls.close(fd)
    assert world.queue.unlink_bounce(messid)
    assert not world.queue.unlink_bounce(messid)


# a number that was somebody else's


def test_unlink_stale_removes_only_what_send_owns(world: World) -> None:
    messid = world.inject(MESS, ENVELOPE)
    for name in ("info", "remote", "bounce"):
        world.put(name, messid, b"old")
    part = messid % 23
    changed = world.queue.unlink_stale(messid)
    assert changed == {f"info/{part}", f"remote/{part}", "bounce"}
    assert world.present(messid) == {"mess", "intd", "todo"}
    assert world.queue.unlink_stale(messid) == set()


# what must not be there


def test_queue_refuses_files_that_are_directories(world: World) -> None:
    for name in ("todo", "mess", "info", "remote"):
        fd = world.queue.dir_fd(name, MessId(46))
        world.calls.mkdir("46", 0o700, dir_fd=fd)
    with pytest.raises(QueueCorrupt):
        world.queue.read_todo(MessId(46))
    with pytest.raises(QueueCorrupt):
        world.queue.open_mess(MessId(46))
    with pytest.raises(QueueCorrupt):
        world.queue.read_info(MessId(46))
    with pytest.raises(QueueCorrupt):
        world.queue.read_recips(Channel.REMOTE, MessId(46))


def test_foreign_names_are_no_messages(world: World) -> None:
    todo = world.queue.dir_fd("todo")
    for name in ("README", "0", "012", "1x", "-3", "9" * 21):
        world.calls.close(
            world.calls.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=todo)
        )
    assert list(world.queue.list_todo()) == []


def test_file_over_its_bound_is_corrupt_without_being_read(world: World) -> None:
    messid = world.inject(MESS, ENVELOPE)
    todo = world.queue.dir_fd("todo")
    fd = world.calls.open(str(messid), os.O_WRONLY, dir_fd=todo)
    world.calls.ftruncate(fd, TODO_MAX + 1)
    world.calls.close(fd)
    with pytest.raises(QueueCorrupt):
        world.queue.read_todo(messid)
