"""Who injects: the kernel's word for a peer, and what it is allowed.

Source: unix(7) SO_PEERCRED, proc(5); docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from qsend.core.model import Accounts
from qsend.formats import received

_UCRED = struct.Struct("=3i")
_STAT_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The peer of one connection.

    `pid` is 0 when the kernel cannot say it. `who` goes into the Received line.
    `is_trusted`: root and those of qsend's accounts that send mail, without
    per-uid limits.
    `is_exempt`: bounces, and what is known at once to be let past everything
    but a full disk.
    """

    uid: int
    pid: int
    who: bytes
    is_trusted: bool
    is_exempt: bool = False

    def is_forward(self, start_pid: int) -> bool:
        """Whether the peer is a local child: its grandparent is our parent.

        Looked up when a limit is hit only. A pid that was reused meanwhile could
        pass for one; all it gains is not to be limited.
        """
        if not self.pid or start_pid <= 1:
            return False
        parent = _parent_of(self.pid)
        return parent > 1 and _parent_of(parent) == start_pid


def identify(sock: socket.socket, accounts: Accounts) -> Caller:
    """The caller at the other end of an accepted connection. Raises: OSError."""
    pid, uid = _peer(sock)
    single_user = accounts.qmails.uid == accounts.qmaild.uid
    return Caller(
        uid=uid,
        pid=max(pid, 0),
        who=received.invoker(uid, accounts),
        is_trusted=uid in _trusted_uids(accounts),
        is_exempt=uid == accounts.qmails.uid and not single_user,
    )


def admit(sock: socket.socket, is_welcome: Callable[[int], bool]) -> int | None:
    """The uid at the other end of an accepted connection, when that is welcome.

    None otherwise, or when the kernel cannot say it: then `sock` is closed.
    """
    try:
        _, uid = _peer(sock)
    except OSError:
        sock.close()
        return None
    if not is_welcome(uid):
        sock.close()
        return None
    return uid


def _peer(sock: socket.socket) -> tuple[int, int]:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(raw)
    return pid, uid


def bounces(accounts: Accounts) -> Caller:
    """send, on the socket pair that start made: SO_PEERCRED would say start."""
    return Caller(
        uid=accounts.qmails.uid,
        pid=0,
        who=received.FOR_BOUNCE,
        is_trusted=True,
        is_exempt=True,
    )


def listener(accounts: Accounts) -> Caller:
    """A network listener on a socket pair that start made."""
    return Caller(
        uid=accounts.qmaild.uid, pid=0, who=received.FROM_NETWORK, is_trusted=True
    )


def _trusted_uids(accounts: Accounts) -> set[int]:
    # The user that owns alias is nobody's login; its deliveries inject forwards.
    # qmaill, qmailp and qmailr have no mail to send: there only a break-in would.
    return {
        0,
        accounts.alias.uid,
        accounts.qmaild.uid,
        accounts.qmailq.uid,
        accounts.qmails.uid,
    }


def _parent_of(pid: int) -> int:
    """The parent's pid; 0 when the process is gone or hidden."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return 0
    try:
        # pid (name) state ppid: the name may hold anything, so read from its end.
        fields = os.read(fd, _STAT_MAX).rpartition(b")")[2].split()
        return int(fields[1])
    except (OSError, IndexError, ValueError):
        return 0
    finally:
        os.close(fd)
