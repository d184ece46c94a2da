"""What real file systems keep of what was called durable.

Unlike the cuts of tests/torture, whose disk is a model, this asks the kernel: the image
below a mounted file system is copied, mended, and read.
"""

from __future__ import annotations

import mailbox
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.formats.control import Durability
from qsend.sysio import queuemaker
from qsend.sysio.durable import Steps, SyncSet
from qsend.sysio.loop import Loop
from qsend.sysio.maildir import Maildirs
from qsend.sysio.messagefile import MessageFile
from qsend.sysio.queuewriter import Draft, QueueWriter
from qsend.sysio.syncer import Syncer
from tests.loopdisk import (
    EXT4,
    EXT4_WITHOUT_JOURNAL,
    XFS,
    LoopDisk,
    loop_disks,
    needs_loop,
)
from tests.queues import own_accounts

pytestmark = [needs_loop, pytest.mark.root]
COUNTS = pytest.mark.parametrize("count", [1, 12], ids=["alone", "together"])


@pytest.fixture(params=[EXT4, EXT4_WITHOUT_JOURNAL, XFS])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoopDisk]:
    with loop_disks(tmp_path) as make:
        yield make(request.param)


@COUNTS
def test_what_was_delivered_into_a_maildir_is_there(
    disk: LoopDisk, tmp_path: Path, count: int
) -> None:
    mailbox.Maildir(disk.where / "Maildir", create=True)
    os.sync()
    bodies = [b"message %d\n" % n * 200 for n in range(count)]
    home = os.open(disk.where, os.O_RDONLY)
    messages = [_message(tmp_path / str(n), body) for n, body in enumerate(bodies)]
    maildirs = Maildirs(Durability.FULL)
    _carry_out(
        [maildirs.deliver(home, b"Maildir", b"", message) for message in messages]
    )
    with disk.after_power_cut() as after:
        found = [path.read_bytes() for path in (after / "Maildir/new").iterdir()]
    for fd in (home, *(message.fd for message in messages)):
        os.close(fd)
    assert sorted(found) == sorted(bodies)


@COUNTS
def test_what_was_queued_is_there(disk: LoopDisk, count: int) -> None:
    queuemaker.create(str(disk.where), own_accounts())
    os.sync()
    writer = QueueWriter(str(disk.where / "queue"))
    loop = Loop()
    syncer = Syncer(loop, Durability.FULL, [writer.todo_fd])
    drafts = [writer.begin(b"Received: by x\n") for _ in range(count)]
    for draft in drafts:
        draft.write_message(b"text of %d\n" % draft.messid)
        draft.write_envelope(b"u0\0p1\0Fs@t\0Tr%d@t\0" % draft.messid)
        _commit(syncer, draft)
    _turn_until_idle(loop, syncer)
    with disk.after_power_cut() as after:
        found = {draft.messid: _files(after / "queue", draft) for draft in drafts}
    syncer.close()
    loop.close()
    writer.close()
    for messid, (mess, todo) in found.items():
        assert mess == b"Received: by x\ntext of %d\n" % messid
        assert todo == b"u0\0p1\0Fs@t\0Tr%d@t\0" % messid


def _files(queue: Path, draft: Draft) -> tuple[bytes, bytes]:
    """The message, and the envelope in todo."""
    mess = queue / f"mess/{draft.messid % 23}/{draft.messid}"
    return mess.read_bytes(), (queue / f"todo/{draft.messid}").read_bytes()


def _message(path: Path, body: bytes) -> MessageFile:
    path.write_bytes(body)
    return MessageFile(os.open(path, os.O_RDONLY))


def _carry_out(deliveries: list[Steps[None]]) -> None:
    """Side by side, in rounds that are synced together."""
    syncs = SyncSet()
    waiting = [(steps, next(steps)) for steps in deliveries]
    while waiting:
        assert syncs.sync([fd for _, fd in waiting]) == {}
        went_on = ((steps, next(steps, None)) for steps, _ in waiting)
        waiting = [(steps, fd) for steps, fd in went_on if fd is not None]
    syncs.close()


def _commit(syncer: Syncer, draft: Draft) -> None:
    """As a stream of enqueue does it, in two rounds."""
    files, dirs = draft.seal()

    def sealed(error: OSError | None) -> None:
        assert error is None
        syncer.commit((), draft.publish(), published)

    def published(error: OSError | None) -> None:
        assert error is None

    syncer.commit(files, dirs, sealed)


def _turn_until_idle(loop: Loop, syncer: Syncer) -> None:
    while not syncer.idle():
        loop.turn(10)
