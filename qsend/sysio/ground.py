"""What the tree stands on: checked and opened by start before its first fork.

The order matters: first the lock, so that a second start says that it is the
second; then everything that an operator can have got wrong; sockets last.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass

from qsend.core import family
from qsend.core.errors import Fatal
from qsend.core.model import Accounts
from qsend.sysio import listening, lookupclient, queuemaker, unixsocket
from qsend.sysio.accounts import load_accounts
from qsend.sysio.controldir import Snapshot
from qsend.sysio.handover import take_over
from qsend.sysio.listening import Listening
from qsend.sysio.runlock import MUTEX, lock_queue
from qsend.sysio.supervisor import LentSockets
from qsend.sysio.validate import take_good


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Accounts, the first snapshot of the controls (not closed by `leave`: another
    may be in its place by then), and what stays open.

    `listen` is the injection socket, `control` the operator's, `lookup` that for
    questions about users; `network` has those of all network services. `is_lent`: the
    injection socket is a service manager's, and so is its name; `idle` names the
    sockets that one has handed over and nobody uses.
    """

    home: str
    accounts: Accounts
    lock_fd: int
    controls: Snapshot
    listen: socket.socket
    control: socket.socket
    lookup: socket.socket
    network: Listening
    is_lent: bool = False
    idle: tuple[str, ...] = ()

    def listeners_of(self, role: str) -> dict[str, socket.socket]:
        """The listening sockets that a process is forked with."""
        match family.kind(role):
            case "enqueue":
                return {"listen": self.listen}
            case "send":
                return {"control": self.control}
            case "lookup":
                return {"listen": self.lookup}
            case _:
                return self.network.of(role)

    def leave(self, *, keep_injection: bool) -> None:
        """Take the names away and close everything; the lock last.

        `keep_injection`: an enqueue that stays behind goes on listening.
        """
        unixsocket.remove(control_path(self.home))
        unixsocket.remove(lookupclient.socket_path(self.home))
        if not (keep_injection or self.is_lent):
            unixsocket.remove(injection_path(self.home))
        for sock in (self.listen, self.control, self.lookup):
            sock.close()
        self.network.close()
        os.close(self.lock_fd)


def injection_path(home: str) -> str:
    """Where programs hand in mail."""
    return f"{home}/run/enqueue.sock"


def control_path(home: str) -> str:
    """Where the operator's commands go."""
    return f"{home}/run/control.sock"


def prepare(
    home: str, single_user: bool, cores: int = 1, lent: LentSockets | None = None
) -> Ground:
    """Check everything and open what outlives children.

    `cores` is how many processes share the ports of SMTP; `lent` has sockets that
    need not be opened.

    Raises: ConfigError when accounts or controls are wrong; Fatal when the queue
        cannot be used or somebody else uses it; TempFail when the system has no
        room for a process.
    """
    lent = LentSockets() if lent is None else lent
    accounts = load_accounts(single_user)
    with ExitStack() as opened:
        lock_fd = _lock(home, accounts)
        opened.callback(os.close, lock_fd)
        controls = take_good(home, accounts.qmailp)
        opened.callback(controls.close)
        _check_queue(home, accounts)
        network = listening.open_all(controls.files, cores, lent)
        # Only root and send itself may tell send what to do.
        control = unixsocket.listen_at(control_path(home), 0o600, accounts.qmails)
        lookup = unixsocket.listen_at(lookupclient.socket_path(home), 0o666)
        borrowed = lent.take_unix(injection_path(home))
        listen = _injection_listener(home) if borrowed is None else borrowed
        opened.pop_all()
    return Ground(
        home=home,
        accounts=accounts,
        lock_fd=lock_fd,
        controls=controls,
        listen=listen,
        control=control,
        lookup=lookup,
        network=network,
        is_lent=borrowed is not None,
        idle=tuple(lent.close()),
    )


def _lock(home: str, accounts: Accounts) -> int:
    try:
        return lock_queue(f"{home}/queue")
    except Fatal:
        # A queue that is broken or missing deserves a better word than its lock.
        if not os.path.exists(f"{home}/queue/{MUTEX}"):
            _check_queue(home, accounts)
        raise


def _check_queue(home: str, accounts: Accounts) -> None:
    if faults := queuemaker.verify(home, accounts):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise Fatal(
            f"cannot start: {home}/{faults[0]}{more}; "
            "`qsend check` tells all, `qsend setup` mends"
        )
    if os.statvfs(f"{home}/queue").f_flag & os.ST_RDONLY:
        raise Fatal(f"cannot start: {home}/queue is on a read-only file system")


def _injection_listener(home: str) -> socket.socket:
    """The socket of an enqueue that a stop has left running, or a new one."""
    path = injection_path(home)
    taken = take_over(path)
    return unixsocket.listen_at(path, 0o666) if taken is None else taken
