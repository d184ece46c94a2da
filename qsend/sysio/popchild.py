"""Children of login: one that judges an account's password, one that is a mailbox.

Both are forked from a root process without threads. The first stays root, because
only root reads the shadow file; it can change no file, and lives for one password.
The second becomes the mailbox's user at once and for good, and can reach nothing but
its maildir.
Source: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

from setproctitle import setproctitle

from qsend.core import logline
from qsend.core.address import log_safe
from qsend.core.errors import TempFail
from qsend.core.lookups import Login
from qsend.core.model import Account, User
from qsend.formats import lookupwire
from qsend.sysio import sandbox, systemlogin
from qsend.sysio.clientline import ClientLine
from qsend.sysio.endpoint import pair
from qsend.sysio.fork import fork_child
from qsend.sysio.popsession import serve
from qsend.sysio.privilege import drop, harden

CHECK_S = 30
"""A directory service that takes longer than this does not answer."""
SESSION_S = 90000.0
"""The listener knows when a client is silent; this is for when it is not there."""
MAILDIR = b"Maildir"


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A forked child; `sock` is our end of its line."""

    pid: int
    sock: socket.socket


def fork_check(login: Login) -> Child:
    """Have an account's password judged; one VERIFIED frame comes, then the end.

    Raises: TempFail when the system has no room for it.
    """
    ours, theirs = _sockets(pair)
    return _fork(ours, theirs, lambda: _check(login, theirs), "qmail-login")


def fork_session(user: User) -> Child:
    """Have a stream served as POP3 session of a mailbox, after the login.

    Raises: TempFail when the system has no room for it.
    """
    ours, theirs = _sockets(socket.socketpair)
    return _fork(ours, theirs, lambda: _serve(user, theirs), "qmail-popsession")


def _sockets(
    make: Callable[[], tuple[socket.socket, socket.socket]],
) -> tuple[socket.socket, socket.socket]:
    try:
        return make()
    except OSError as exc:
        raise TempFail(f"cannot make a socket: {exc.strerror}") from exc


def _fork(
    ours: socket.socket, theirs: socket.socket, run: Callable[[], int], name: str
) -> Child:
    try:
        pid = fork_child(run, (theirs.fileno(),), name)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Child(pid=pid, sock=ours)


def _check(login: Login, sock: socket.socket) -> int:
    """In the child."""
    setproctitle("qmail-login: qsend check")
    # Its end comes from the kernel: whatever it waits for may not be interruptible
    # by Python.
    signal.alarm(CHECK_S)
    sandbox.apply("passwordcheck")
    verification = systemlogin.verify(login)
    sock.send(lookupwire.render_verified(0, verification))
    return 0


def _serve(user: User, sock: socket.socket) -> int:
    """In the child."""
    setproctitle("qmail-popsession: qsend")
    drop(Account(uid=user.uid, gid=user.gid))
    harden()
    os.umask(0o077)
    home = os.fsdecode(user.home)
    sandbox.apply("popsession", home)
    line = ClientLine(sock.fileno(), sock.fileno(), SESSION_S)
    problem = serve(line, os.path.join(user.home, MAILDIR))
    line.close()
    if problem:
        name = log_safe(user.name).decode("ascii")
        os.write(2, logline.warning(f"pop3 session of {name}: {problem}"))
    return 0
