"""A scripted SMTP server on loopback, for tests of what peers do.

Each connection is served by a thread; what was received is kept. A script maps a
step (greeting, EHLO, HELO, STAR, TLS, AUTH, MAIL, RCPT, DATA, DOT, RSET, QUIT) to
what is said then; STAR is STARTTLS, TLS what comes instead of the handshake after
it, if anything. It is bytes without the CRLF, one of the Odd things, or a list that
is used up by one per time the step comes (its last entry stays).
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias

from qsend.sysio import clock

DEADLINE_S = 20.0


_LONG_RECORD = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"
"""The beginning of a server's hello of 16 KiB."""


class Odd(Enum):
    """Things a server should not do."""

    CLOSE = auto()
    """Close the connection."""
    RESET = auto()
    """Close it with a reset."""
    SILENCE = auto()
    """Say nothing until the client leaves."""
    TRICKLE = auto()
    """One byte every 50 ms, never the end of the line."""
    LONG_LINE = auto()
    """A line without end."""
    MANY_LINES = auto()
    """A multi-line reply without end."""
    STOP_READING = auto()
    """354, and then nothing is read."""
    EARLY_552 = auto()
    """354, and a refusal in the middle of the content."""


Said: TypeAlias = bytes | Odd
Script: TypeAlias = Mapping[str, Said | Sequence[Said]]

LOCKSTEP: dict[str, Said | Sequence[Said]] = {
    "greeting": b"220 peer",
    "EHLO": b"250 peer",
    "HELO": b"250 peer",
    "MAIL": b"250 s",
    "RCPT": b"250 r",
    "DATA": b"354 go",
    "DOT": b"250 ok",
    "RSET": b"250 reset",
    "QUIT": b"221 bye",
}
PIPELINED = LOCKSTEP | {
    "EHLO": b"250-peer\r\n250-PIPELINING\r\n250-SIZE\r\n250 8BITMIME"
}


@dataclass(slots=True)
class Served:
    """What one connection brought; `packets` as they were read."""

    commands: list[bytes] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)
    tls: ssl.SSLSocket | None = None
    is_resumed: bool = False
    client_cert: Mapping[str, object] = field(default_factory=dict)


class _Gone(Exception):
    """The conversation is over."""


class Peer:
    """The server; use it in a `with` block."""

    def __init__(
        self,
        script: Script,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        gate: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listen; at the step `gate` wait for `open_gate` before answering.

        `tls` is for the handshake after STARTTLS; what fails in it ends the
        connection and is kept in `tls_failures`.
        """
        self.tls = tls
        self.tls_failures: list[OSError] = []
        self._script = {
            step: [said] if isinstance(said, (bytes, Odd)) else list(said)
            for step, said in script.items()
        }
        self.served: list[Served] = []
        self.failures: list[BaseException] = []
        self._gate = gate
        self._at_gate = threading.Event()
        self._gate_open = threading.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(50)
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()

    def __enter__(self) -> Peer:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_over.set()
        self._gate_open.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.close_connections()
        for thread in tuple(self._threads):
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        self._listener.close()
        for conn in self._connections:
            conn.close()
        assert not self.failures, self.failures

    def close_connections(self) -> None:
        """End every connection from this side."""
        with self._lock:
            for conn in self._connections:
                with suppress(OSError):
                    # Of the socket, also under TLS, whose object stays.
                    socket.socket.shutdown(conn, socket.SHUT_RDWR)

    @property
    def commands(self) -> list[bytes]:
        """All commands of all connections, in order of connection."""
        return [command for served in self.served for command in served.commands]

    @property
    def contents(self) -> list[bytes]:
        """All contents, as on the wire, with their final dot line."""
        return [content for served in self.served for content in served.contents]

    def _spawn(self, run: object, *args: object) -> None:
        assert callable(run)
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_over.is_set():
            try:
                conn, _addr = self._listener.accept()
            except OSError:
                return
            conn.settimeout(DEADLINE_S)
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            served = Served()
            with self._lock:
                self._connections.append(conn)
                self.served.append(served)
            self._spawn(self._serve, conn, served)

    def _serve(self, conn: socket.socket, served: Served) -> None:
        try:
            _Conversation(self, conn, served).run()
        except (_Gone, ConnectionError, ssl.SSLError):
            pass
        except BaseException as exc:  # noqa: BLE001 - told when the test ends
            self.failures.append(exc)
        finally:
            with suppress(OSError):
                socket.socket.shutdown(served.tls or conn, socket.SHUT_RDWR)

    def secure(self, conn: socket.socket, served: Served) -> socket.socket:
        """The server's side of the handshake."""
        assert self.tls is not None
        try:
            tls = self.tls.wrap_socket(
                conn, server_side=True, do_handshake_on_connect=False
            )
            with self._lock:
                self._connections[self._connections.index(conn)] = tls
            tls.do_handshake()
        except OSError as exc:
            self.tls_failures.append(exc)
            raise _Gone from exc
        served.tls = tls
        served.is_resumed = bool(tls.session_reused)
        served.client_cert = tls.getpeercert() or {}
        return tls

    def has(self, step: str) -> bool:
        """Whether the script says anything of this step."""
        return step in self._script

    def wait_at_gate(self) -> None:
        """Wait until the client has come to the gate."""
        assert self._at_gate.wait(DEADLINE_S)

    def open_gate(self) -> None:
        """Answer there, now and later."""
        self._gate_open.set()

    def wait_served(self, count: int) -> None:
        """Wait until so many connections came."""
        end = clock.mono() + DEADLINE_S
        while len(self.served) < count:
            assert clock.mono() < end, f"{len(self.served)} of {count} connections"
            self._is_over.wait(0.01)

    def next_said(self, step: str) -> Said:
        """What the script has for this step now."""
        if step == self._gate:
            self._at_gate.set()
            assert self._gate_open.wait(DEADLINE_S)
        with self._lock:
            said = self._script[step]
            return said.pop(0) if len(said) > 1 else said[0]

    def wait_over(self, seconds: float) -> bool:
        """Wait so long; whether the test is over."""
        return self._is_over.wait(seconds)


class _Conversation:
    def __init__(self, peer: Peer, conn: socket.socket, served: Served) -> None:
        self._peer = peer
        self._conn = conn
        self._served = served
        self._buffer = b""
        self._is_shaking = False

    def run(self) -> None:
        self._answer("greeting")
        while True:
            line = self._read_to(b"\r\n")
            self._served.commands.append(line[:-2])
            step = line[:4].decode("ascii", "replace").upper()
            said = self._answer(step)
            if said.startswith(b"354"):
                self._content()
            elif step == "STAR" and said.startswith(b"220"):
                self._secure()
            while step == "AUTH" and said.startswith(b"334"):
                self._served.commands.append(self._read_to(b"\r\n")[:-2])
                said = self._answer(step)
            if step == "QUIT":
                return

    def _secure(self) -> None:
        if self._peer.has("TLS"):
            self._is_shaking = True
            self._conn.recv(65536)  # its hello
            self._answer("TLS")
            self._drain()
            raise _Gone
        self._conn = self._peer.secure(self._conn, self._served)

    def _content(self) -> None:
        if self._buffer.startswith(b".\r\n"):
            content, self._buffer = self._buffer[:3], self._buffer[3:]
        else:
            content = self._read_to(b"\r\n.\r\n", lone=b".\r\n")
        self._served.contents.append(content)
        self._answer("DOT")

    def _read_to(self, end: bytes, lone: bytes | None = None) -> bytes:
        parts = bytearray(self._buffer)
        at = 0
        while (found := parts.find(end, at)) < 0:
            if lone is not None and parts == lone:
                self._buffer = b""
                return bytes(parts)
            at = max(0, len(parts) - len(end))
            data = self._conn.recv(262144)
            if not data:
                raise _Gone
            self._served.packets.append(data)
            parts += data
        cut = found + len(end)
        self._buffer = bytes(parts[cut:])
        return bytes(parts[:cut])

    def _answer(self, step: str) -> bytes:
        said = self._peer.next_said(step)
        if isinstance(said, bytes):
            self._conn.sendall(said + b"\r\n")
            return said
        self._misbehave(said)
        raise _Gone

    def _misbehave(self, odd: Odd) -> None:
        match odd:
            case Odd.CLOSE:
                pass
            case Odd.RESET:
                linger = (1).to_bytes(4, "little") + bytes(4)
                self._conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self._conn.close()
            case Odd.SILENCE:
                self._drain()
            case Odd.TRICKLE:
                self._conn.sendall(b"250-" if not self._is_shaking else _LONG_RECORD)
                while not self._peer.wait_over(0.05):
                    self._conn.sendall(b"x")
            case Odd.LONG_LINE:
                self._flood(b"x" * 4096)
            case Odd.MANY_LINES:
                self._flood(b"-x\r\n250" * 1000)
            case Odd.STOP_READING:
                self._conn.sendall(b"354 go\r\n")
                self._peer.wait_over(DEADLINE_S)
            case Odd.EARLY_552:
                self._conn.sendall(b"354 go\r\n")
                self._conn.recv(10)
                self._conn.sendall(b"552 too much\r\n")
                self._drain()

    def _flood(self, data: bytes) -> None:
        self._conn.sendall(b"250")
        while True:
            self._conn.sendall(data)

    def _drain(self) -> None:
        while self._conn.recv(65536):
            pass
