"""A service manager's side: the socket at which services tell how they do."""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

WAIT_S = 30.0


class ServiceManager:
    """Listens as systemd does, and keeps what it was told."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        path.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IWOTH)
        self._path = path
        self.told: list[dict[str, str]] = []

    def __enter__(self) -> ServiceManager:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def environ(self, watchdog_s: float | None = None) -> Mapping[str, str]:
        """What a service is started with."""
        found = {"NOTIFY_SOCKET": str(self._path)}
        if watchdog_s is not None:
            found["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        return found

    def hear(self, wait_s: float = WAIT_S) -> dict[str, str] | None:
        """The next packet, by name of its words; None when none comes."""
        if not select.select([self._sock], [], [], wait_s)[0]:
            return None
        packet = os.read(self._sock.fileno(), 65536).decode()
        words = dict(line.split("=", 1) for line in packet.split("\n"))
        self.told.append(words)
        return words

    def wait(self, name: str, value: str = "1") -> dict[str, str]:
        """The next packet that says so; those before it are passed over."""
        while (words := self.hear()) is not None:
            if words.get(name) == value:
                return words
        raise AssertionError(f"{name}={value} not in {self.told}")

    def silence(self, quiet_s: float) -> None:
        """Read what has been told until nothing comes for `quiet_s` seconds."""
        while self.hear(quiet_s) is not None:
            pass


def listening_unix(path: Path) -> socket.socket:
    """As a socket unit's ListenSequentialPacket= with SocketMode=0666."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(str(path))
    path.chmod(0o666)
    sock.listen(128)
    return sock


def listening_tcp(address: str = "127.0.0.1") -> socket.socket:
    """As a socket unit's ListenStream=, at a free port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((address, 0))
    sock.listen(128)
    return sock
