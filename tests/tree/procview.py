"""What /proc and the kernel tell about the processes of a running tree."""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.tree.harness import Tree

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_DUMP = 0x301
_SHOW_PEER, _PEER = 4, 2
_HEAD = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIII8s")
_MESSAGE = struct.Struct("=BBBBI8s")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One process as others see it."""

    role: str
    pid: int
    status: Mapping[str, list[str]]
    fds: Mapping[int, str]
    title: bytes
    environ: bytes
    dumpable: bool

    @property
    def ids(self) -> tuple[set[str], set[str], list[str]]:
        """All four uids, all four gids, the supplementary groups."""
        return set(self.status["Uid"]), set(self.status["Gid"]), self.status["Groups"]

    @property
    def sockets(self) -> dict[int, int]:
        """Descriptor to inode."""
        return {
            fd: int(link[8:-1])
            for fd, link in self.fds.items()
            if link.startswith("socket:[")
        }

    def files(self, below: Path) -> set[str]:
        """Paths open below a directory, relative to it; deleted ones as well."""
        links = (link.removesuffix(" (deleted)") for link in self.fds.values())
        return {
            os.path.relpath(link, below)
            for link in links
            if Path(link).is_relative_to(below)
        }


def look(pid: int) -> Seen:
    """Look at one process."""
    proc = Path(f"/proc/{pid}")
    lines = (proc / "status").read_text().splitlines()
    title = (proc / "cmdline").read_bytes()
    fds = {}
    for name in os.listdir(proc / "fd"):
        try:
            fds[int(name)] = os.readlink(proc / "fd" / name)
        except FileNotFoundError:
            continue  # closed meanwhile
    status = {line.split(":")[0]: line.split(":", 1)[1].split() for line in lines}
    return Seen(
        role=title.split(b":")[0].decode().removeprefix("qmail-"),
        pid=pid,
        status=status,
        fds=fds,
        title=title.rstrip(b"\0"),
        environ=(proc / "environ").read_bytes(),
        # The files of a process that is not dumpable belong to root.
        dumpable=(proc / "status").stat().st_uid == int(status["Uid"][1]),
    )


def family(tree: Tree) -> dict[str, list[Seen]]:
    """Every process of the tree by role: start, send, queue, local ..."""
    found: dict[str, list[Seen]] = {}
    for process in tree.family():
        try:
            seen = look(process.pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        found.setdefault(seen.role, []).append(seen)
    return found


def links(processes: list[Seen]) -> Counter[tuple[str, str]]:
    """How many unix sockets lead from one role to another.

    A listening socket leads to the name of its file; one whose other end is in
    none of the processes, to "?".
    """
    peers, paths = _peers(), _paths()
    owners: dict[int, set[str]] = {}
    for process in processes:
        for inode in process.sockets.values():
            owners.setdefault(inode, set()).add(process.role)
    found: Counter[tuple[str, str]] = Counter()
    for process in processes:
        for inode in process.sockets.values():
            if inode in peers:
                for other in owners.get(peers[inode], {"?"}):
                    found[process.role, other] += 1
            elif inode in paths:
                found[process.role, os.path.basename(paths[inode])] += 1
    return found


def _paths() -> dict[int, str]:
    """Inode to path, "" for none, of each unix socket."""
    rows = Path("/proc/net/unix").read_text().splitlines()[1:]
    fields = (row.split(maxsplit=7) for row in rows)
    return {int(each[6]): each[7] if len(each) == 8 else "" for each in fields}


def _peers() -> dict[int, int]:
    """Inode to the inode of the other end, of all connected unix sockets.

    Source: sock_diag(7).
    """
    request = _REQUEST.pack(
        socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_PEER, b"\xff" * 8
    )
    head = _HEAD.pack(_HEAD.size + len(request), _SOCK_DIAG_BY_FAMILY, _DUMP, 0, 0)
    found: dict[int, int] = {}
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG
    ) as netlink:
        netlink.settimeout(10)
        netlink.send(head + request)
        while True:
            data = netlink.recv(1 << 20)
            while data:
                length, kind, *_ = _HEAD.unpack_from(data)
                assert kind != _NLMSG_ERROR, data
                if kind == _NLMSG_DONE:
                    return found
                found.update(_peer_in(data[_HEAD.size : length]))
                data = data[length:]


def _peer_in(message: bytes) -> dict[int, int]:
    inode = _MESSAGE.unpack_from(message)[4]
    at = _MESSAGE.size
    while at < len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if kind == _PEER:
            (peer,) = struct.unpack_from("=I", message, at + _ATTRIBUTE.size)
            return {inode: peer}
        at += (length + 3) & ~3
    return {}
