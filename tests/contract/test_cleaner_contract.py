"""One suite for clean's side of the queue, on a real disk and on the fake one."""

from __future__ import annotations

import errno
import os

import pytest

from qsend.core.model import FileIdentity, MessId
from qsend.formats import paths
from qsend.formats.cleanwire import Aside, Foop, Request, Todo
from qsend.sysio.cleaner import OSSIFIED_S
from tests.contract.worlds import World

MESS = b"Received: x\n\nhello\n"
ENVELOPE = b"u0\0p1\0Fa@x\0Tb@y\0"


def test_foop_removes_everything_and_spares_the_rest(world: World) -> None:
    messid, other = (world.inject(MESS, ENVELOPE) for _ in range(2))
    foop = Foop(messid=messid, identity=world.queue.stat_mess(messid))
    assert world.cleaner.work([foop]) == [0]
    assert world.present(messid) == set()
    assert world.present(other) == {"mess", "intd", "todo"}


def test_foop_of_what_is_gone_is_done(world: World) -> None:
    identity = FileIdentity(mtime_ns=1, size=1)
    assert world.cleaner.work([Foop(messid=MessId(3), identity=identity)]) == [0]


@pytest.mark.parametrize("change", [{"mtime_ns": 1}, {"size": 1}])
def test_foop_of_another_file_is_stale_and_removes_nothing(
    world: World, change: dict[str, int]
) -> None:
    messid = world.inject(MESS, ENVELOPE)
    now = world.queue.stat_mess(messid)
    meant = FileIdentity(
        mtime_ns=change.get("mtime_ns", now.mtime_ns),
        size=change.get("size", now.size),
    )
    foop = Foop(messid=messid, identity=meant)
    assert world.cleaner.work([foop]) == [errno.ESTALE]
    assert world.present(messid) == {"mess", "intd", "todo"}


@pytest.mark.parametrize("known", [True, False])
def test_foop_of_orphan_with_todo_is_stale(world: World, known: bool) -> None:
    messid = world.inject(MESS, ENVELOPE)
    identity = world.queue.stat_mess(messid) if known else None
    foop = Foop(messid=messid, identity=identity, orphan=True)
    assert world.cleaner.work([foop]) == [errno.ESTALE]
    assert world.present(messid) == {"mess", "intd", "todo"}
    world.remove(paths.todo(messid))
    assert world.cleaner.work([foop]) == [0]
    assert world.present(messid) == set()


def test_foop_of_missing_mess_leaves_the_envelope_of_whoever_comes(
    world: World,
) -> None:
    messid = world.inject(MESS, ENVELOPE)
    identity = world.queue.stat_mess(messid)
    world.remove(paths.mess(messid))
    assert world.cleaner.work([Foop(messid=messid, identity=identity)]) == [0]
    assert world.present(messid) == {"intd", "todo"}


def test_classic_foop_removes_by_number_and_leaves_todo(world: World) -> None:
    messid = world.inject(MESS, ENVELOPE)
    assert world.cleaner.work([Foop(messid=messid, identity=None)]) == [0]
    assert world.present(messid) == {"todo"}


def test_batch_with_one_bad_request_does_the_others(world: World) -> None:
    good, stale = (world.inject(MESS, ENVELOPE) for _ in range(2))
    batch: list[Request] = [
        Foop(messid=stale, identity=FileIdentity(mtime_ns=1, size=1)),
        Foop(messid=good, identity=world.queue.stat_mess(good)),
        Todo(messid=stale),
        Foop(messid=good, identity=world.queue.stat_mess(good)),
    ]
    assert world.cleaner.work(batch) == [errno.ESTALE, 0, 0, 0]
    assert world.present(good) == set()
    assert world.present(stale) == {"mess"}


def test_aside_keeps_every_file_of_both_owners(world: World) -> None:
    messid = world.inject(MESS, b"garbage")
    identity = world.queue.stat_mess(messid)
    for name in ("info", "local", "bounce"):
        world.put(name, messid, name.encode())
    aside = Aside(messid=messid, stamp=99, reason=b"todo: unknown record")
    assert world.cleaner.work([aside]) == [0]
    assert world.queue.move_aside(messid, 99) == {"info", "local", "bounce"}
    assert world.present(messid) == set()
    kept = f"aside/{messid}.99"
    assert world.files() == {
        f"{kept}/reason": b"todo: unknown record\n",
        f"{kept}/mess": MESS,
        f"{kept}/intd": b"garbage",
        f"{kept}/todo": b"garbage",
        f"{kept}/info": b"info",
        f"{kept}/local": b"local",
        f"{kept}/bounce": b"bounce",
    }
    found = world.calls.stat(f"{messid}.99/mess", dir_fd=world.queue.dir_fd("aside"))
    assert (found.st_ino, found.st_size) == (messid, identity.size)
    assert world.cleaner.work([aside]) == [0]


def test_aside_of_vanished_message_keeps_what_is_left(world: World) -> None:
    messid = world.inject(MESS, ENVELOPE)
    world.remove(paths.mess(messid))
    aside = Aside(messid=messid, stamp=1, reason=b"no mess")
    assert world.cleaner.work([aside]) == [0]
    assert set(world.files()) == {
        f"aside/{messid}.1/{name}" for name in ("reason", "intd", "todo")
    }


def test_move_aside_before_clean_made_the_place_is_not_found(world: World) -> None:
    world.put("info", MessId(8), b"x")
    with pytest.raises(FileNotFoundError):
        world.queue.move_aside(MessId(8), 1)
    assert world.files() == {"info/8/8": b"x"}


def test_sweep_pid_takes_what_no_writer_can_still_want(world: World) -> None:
    pid = world.queue.dir_fd("pid")
    flags = os.O_WRONLY | os.O_CREAT
    world.calls.close(world.calls.open("12.34.1", flags, dir_fd=pid))
    born = world.calls.stat("12.34.1", dir_fd=pid).st_ctime_ns // 10**9
    assert world.cleaner.sweep_pid(born + OSSIFIED_S - 1) == 0
    assert "pid/12.34.1" in world.files()
    assert world.cleaner.sweep_pid(born + OSSIFIED_S) == 1
    assert world.files() == {}


def test_aside_of_a_directory_in_place_of_the_message_moves_it(world: World) -> None:
    world.calls.mkdir("46", 0o700, dir_fd=world.queue.dir_fd("mess", MessId(46)))
    aside = Aside(messid=MessId(46), stamp=1, reason=b"not a file")
    assert world.cleaner.work([aside]) == [0]
    moved = world.calls.stat("46.1/mess", dir_fd=world.queue.dir_fd("aside"))
    assert moved.st_mode & 0o040000


def test_inode_reused_between_request_and_removal_spares_the_new_message(
    world: World,
) -> None:
    for _ in range(50):
        messid = world.inject(MESS, ENVELOPE)
        foop = Foop(messid=messid, identity=world.queue.stat_mess(messid))
        for path in (paths.todo(messid), paths.intd(messid), paths.mess(messid)):
            world.remove(path)
        if comes_back(world, messid):
            break
    else:
        pytest.fail("the file system gave the number to nobody")
    assert world.cleaner.work([foop]) == [errno.ESTALE]
    assert world.present(messid) == {"mess", "intd", "todo"}
    fd, _ = world.queue.open_mess(messid)
    assert world.calls.read(fd, 100) == b"the new message\n"
    world.calls.close(fd)


def comes_back(world: World, messid: MessId) -> bool:
    """Queue new messages until one gets this number.

    A test running beside this one may be faster to take it; then never.
    """
    numbers = (
        world.inject(b"the new message\n", b"u0\0p2\0Fn@x\0Tm@y\0") for _ in range(20)
    )
    return messid in numbers
