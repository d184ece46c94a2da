"""QMQP servers that do as they are told, on threads of the test."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DEADLINE_S = 30.0
Behaviour = Callable[[socket.socket], None]


class Scripted:
    """A listener; `requests` is what clients said, `port` where it listens."""

    def __init__(self, behave: Behaviour, address: str) -> None:
        self.requests: list[bytes] = []
        self._behave = behave
        self._sock = socket.create_server(
            (address, 0),
            family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        )
        self._sock.settimeout(DEADLINE_S)
        self.port = int(self._sock.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE_S)
        self._sock.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
            except OSError:
                return
            with client:
                client.settimeout(DEADLINE_S)
                try:
                    self._behave(client)
                except OSError:
                    continue

    def answering(self, answer: bytes) -> Behaviour:
        """Read one whole request, keep it, and say `answer`."""

        def behave(client: socket.socket) -> None:
            self.requests.append(read_netstring(client))
            client.sendall(answer)

        return behave


def read_netstring(client: socket.socket) -> bytes:
    with client.makefile("rb") as stream:
        digits = b""
        while (byte := stream.read(1)) != b":":
            if not byte:
                raise ConnectionError
            digits += byte
        content = stream.read(int(digits))
        if stream.read(1) != b",":
            raise ConnectionError
        return content


@contextmanager
def answering(answer: bytes, address: str = "127.0.0.1") -> Iterator[Scripted]:
    """A server that reads one request per connection and says `answer`."""

    def behave(client: socket.socket) -> None:
        made.answering(answer)(client)

    made = Scripted(behave, address)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def behaving(behave: Behaviour) -> Iterator[Scripted]:
    """A server that does this with each client."""
    made = Scripted(behave, "127.0.0.1")
    try:
        yield made
    finally:
        made.close()


def closed_port() -> int:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
