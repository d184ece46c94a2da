"""The listening sockets of network services, from control files to processes.

Source: docs/ARCHITECTURE.md; tcplisten.py opens them.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from qsend.core import family
from qsend.core.errors import ConfigError, ConfigFault
from qsend.formats import popcontrols, smtpdcontrols
from qsend.formats.listeners import Listener, parse_listeners
from qsend.formats.qmtpcontrols import QMQP_LISTEN, QMTP_LISTEN
from qsend.sysio.supervisor import LentSockets
from qsend.sysio.tcplisten import listen_on

_FILES: Mapping[str, tuple[str, ...]] = {
    "pop3d": (popcontrols.LISTEN,),
    "smtpd": (smtpdcontrols.LISTEN,),
    "qmtpd": (QMTP_LISTEN, QMQP_LISTEN),
}
"""The kinds of processes that listen, and the control files that say where."""
_WORDS: Mapping[str, tuple[str, ...]] = {
    popcontrols.LISTEN: popcontrols.LISTEN_WORDS,
    smtpdcontrols.LISTEN: smtpdcontrols.LISTEN_WORDS,
    QMTP_LISTEN: (),
    QMQP_LISTEN: (),
}
"""The words that may follow an address."""
_SHARED = "smtpd"
"""The kind of which there is one process for each core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """All of a tree: by control file, for each of its lines a socket per process."""

    by_file: Mapping[str, tuple[tuple[socket.socket, ...], ...]]

    def processes(self, kind: str) -> int:
        """How many processes of a kind there are to be."""
        lines = [line for name in _FILES[kind] for line in self.by_file[name]]
        return max(map(len, lines), default=0)

    def of(self, role: str) -> dict[str, socket.socket]:
        """What a process gets, by `file0`, `file1` ... in the order of the lines."""
        kind = family.kind(role)
        if kind not in _FILES:
            return {}
        mine = int(role.removeprefix(kind) or "0")
        return {
            f"{name}{number}": line[mine]
            for name in _FILES[kind]
            for number, line in enumerate(self.by_file[name])
        }

    def close(self) -> None:
        """Close all."""
        for lines in self.by_file.values():
            for line in lines:
                for sock in line:
                    sock.close()


def open_all(
    files: Mapping[str, bytes], cores: int, lent: LentSockets | None = None
) -> Listening:
    """The sockets of a snapshot that was found good; `cores` is for smtpd.

    Those in `lent` are taken from there.

    Raises: Fatal, naming the one that cannot be had.
    """
    wanted = _wanted(files)
    return Listening(
        by_file={
            name: listen_on(
                wanted[name], sharing=cores if kind == _SHARED else 1, lent=lent
            )
            for kind, names in _FILES.items()
            for name in names
        }
    )


def listeners(files: Mapping[str, bytes]) -> tuple[Listener, ...]:
    """All that the control files name. Raises: ConfigError."""
    return tuple(itertools.chain.from_iterable(_wanted(files).values()))


def changed(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> Iterator[str]:
    """The control files whose change needs a new start."""
    for names in _FILES.values():
        yield from (name for name in names if old.get(name) != new.get(name))


def _wanted(files: Mapping[str, bytes]) -> Mapping[str, tuple[Listener, ...]]:
    faults: list[ConfigFault] = []
    wanted = {
        name: parse_listeners(name, files.get(name, b""), words, faults)
        for name, words in _WORDS.items()
    }
    if faults:
        raise ConfigError(faults)
    return wanted
