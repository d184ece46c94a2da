"""What start hands a child at its fork, and lspawn a local child."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from qsend.core.model import Account, Accounts
from qsend.formats.control import Controls


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """A child's whole inheritance; the child owns the sockets.

    `home` is the absolute home directory, `queue` its queue directory. `socks`
    maps the role of each peer ("start", "send", "clean", "lookup", "lspawn",
    "enqueue", "remote0" ...) to this child's end of a SEQPACKET pair; "listen"
    is a listening socket where the role has one. `default_delivery` is dot-qmail
    text. `files` are the control files that the role may know, unparsed;
    `siblings` counts the processes that do the same, this one included.
    Descriptors 0, 1, 2 are /dev/null, the log, and the log.
    """

    role: str
    home: str
    single_user: bool
    accounts: Accounts
    controls: Controls
    default_delivery: bytes
    socks: Mapping[str, socket.socket]
    files: Mapping[str, bytes] = field(default_factory=dict)
    siblings: int = 1

    @property
    def queue(self) -> str:
        """The queue directory."""
        return f"{self.home}/queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildBoot:
    """A local child's whole inheritance; the child owns the socket.

    `home` is qsend's home, not the user's. Privilege is already dropped to
    `account`, every descriptor but `sock` and 0, 1, 2 is closed. CHILD frames,
    one descriptor each, come on `sock`; REPORT frames go back; its end means: no
    more work. `controls` and `default_delivery` are those of Boot.
    """

    home: str
    account: Account
    controls: Controls
    default_delivery: bytes
    sock: socket.socket
    single_user: bool
