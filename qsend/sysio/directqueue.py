"""Writing the queue without the enqueue process, in a child of our own.

For root and the queue's owner when nobody listens. The child becomes the owner
of the queue directory (qmailq) and then serves its parent exactly as enqueue
would: the same frames, checks, order and syncs.
"""

from __future__ import annotations

import os
import socket
import stat

from qsend.core.errors import ConfigError, TempFail
from qsend.core.model import Account, Accounts, MessId
from qsend.core.quota import Limits
from qsend.formats.control import Controls, parse_controls
from qsend.formats.queueexit import QueueExit
from qsend.formats.received import by_uid
from qsend.sysio import trigger
from qsend.sysio.callers import Caller
from qsend.sysio.endpoint import pair
from qsend.sysio.fork import fork_child
from qsend.sysio.home import read_control
from qsend.sysio.injectserver import InjectServer
from qsend.sysio.injectstream import Intake
from qsend.sysio.loop import Loop
from qsend.sysio.privilege import drop, harden
from qsend.sysio.queuewriter import QueueTrouble, QueueWriter
from qsend.sysio.syncer import Syncer

_CONTROLS = ("durability", "queueminfree")


def open_writer(home: str) -> tuple[socket.socket, int]:
    """Fork the writer of one connection.

    Returns: the connection, and the child's pid: reap it after closing. When the
        child ends without an answer, its exit code is qmail-queue's.
    Raises: TempFail when the system has no room for another process.
    """
    ours, theirs = pair()
    caller = Caller(
        uid=os.getuid(), pid=os.getpid(), who=by_uid(os.getuid()), is_trusted=True
    )
    try:
        pid = fork_child(
            lambda: _serve(home, theirs, caller), [theirs.fileno()], "qmail-queue"
        )
    except TempFail:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours, pid


def _serve(home: str, sock: socket.socket, caller: Caller) -> int:
    """The child: one connection, until its end. Returns: its exit code."""
    try:
        controls = _read_controls(home)
    except (ConfigError, TempFail):
        return QueueExit.CONFIG
    try:
        account = _become_owner(f"{home}/queue")
        writer = QueueWriter(f"{home}/queue")
    except (OSError, QueueTrouble):
        return QueueExit.QUEUE
    harden()
    loop = Loop()
    syncer = Syncer(loop, controls.durability, [writer.todo_fd])
    queued: list[MessId] = []
    intake = Intake(
        writer,
        syncer,
        min_free=controls.queueminfree,
        start_pid=0,
        on_queued=queued.append,
        on_trouble=_say_nothing,
    )
    server = InjectServer(loop, intake, _all_one(account), Limits())
    server.adopt(sock, caller, lambda: server.drain(loop.stop, keep_incomplete=False))
    loop.run()
    syncer.close()
    if queued:
        trigger.pull(f"{home}/queue/lock/trigger")
    return QueueExit.QUEUED


def _read_controls(home: str) -> Controls:
    found = {name: read_control(home, name) for name in _CONTROLS}
    files = {name: content for name, content in found.items() if content is not None}
    return parse_controls({**files, "me": b"unused"})


def _become_owner(queue: str) -> Account:
    """Become who owns the queue directory: qmailq, or the single user."""
    found = os.stat(queue)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(queue)
    account = Account(uid=found.st_uid, gid=found.st_gid)
    if account.uid != os.geteuid():
        drop(account)
    return account


def _all_one(account: Account) -> Accounts:
    return Accounts(
        alias=account,
        qmaild=account,
        qmaill=account,
        qmailp=account,
        qmailq=account,
        qmailr=account,
        qmails=account,
        root=account,
    )


def _say_nothing(_text: str) -> None:
    """qmail-queue prints nothing; its exit code says what there is to say."""
