"""The client of maildirsmtp: connects to one host and sends what it is given.

Source: maildirsmtp(1), which is maildirserial, tcpclient and serialsmtp. Unlike
these: when no session comes up the run ends after one attempt (there: three), and
messages over their lifetime are returned also if the host was never reached.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qsend.core.errors import QsendError, TempFail
from qsend.core.model import Letter
from qsend.core.mx import relay_literal
from qsend.formats.control import Controls, parse_controls
from qsend.formats.serialmail import Result, render_result
from qsend.sysio import clock
from qsend.sysio.fork import fork_child
from qsend.sysio.home import read_control
from qsend.sysio.serialsmtp import Serial, Wire, names

LIFETIME_S = 1209600
"""Two weeks, as maildirsmtp has it."""
UNREACHABLE = 99
"""Exit code of the client when no session came up."""
PORT = 25

_CONNECT_S = 60
_TEMPORARY = 111


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to send: a name, or an address in brackets or not; `helo` is our name."""

    host: bytes
    port: int
    helo: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpPusher:
    """Starts clients for one maildir."""

    home: str
    target: Target
    prefix: bytes
    lifetime: int | None
    say: Callable[[str], None]

    def start(self, listed: int, writing: int) -> int:
        """Fork a client; its pid. It keeps what we were given, such as a lock."""
        keep = (listed, writing, *inherited())
        return fork_child(lambda: self._client(listed, writing), keep)

    def _client(self, listed: int, writing: int) -> int:
        """In the child: the exit code."""

        def report(result: Result) -> None:
            rest = render_result(result)
            while rest:
                rest = rest[os.write(writing, rest) :]

        try:
            serial = self._opened(report)
        except QsendError as exc:
            self.say(f"fatal: {exc}")
            self._give_up(exc, listed, report)
            return UNREACHABLE
        try:
            for name in names(listed):
                serial.send(name)
            serial.quit()
        except QsendError as exc:
            self.say(f"fatal: {exc}")
            return _TEMPORARY
        return 0

    def _opened(self, report: Callable[[Result], None]) -> Serial:
        """A session that takes mail. Raises: QsendError."""
        sock, remote = connect(self.home, self.target)
        fd = sock.detach()  # open until this process ends
        wire = Wire(reading=fd, writing=fd, remote=remote.encode())
        serial = Serial(wire, self.prefix, report)
        serial.open(self.target.helo)
        return serial

    def _give_up(
        self, exc: QsendError, listed: int, report: Callable[[Result], None]
    ) -> None:
        """Defer what is over its lifetime; the others need no word."""
        if self.lifetime is None:
            return
        oldest = clock.now() - self.lifetime
        text = str(exc).encode("ascii", "replace") + b"\n"
        for name in names(listed):
            try:
                is_old = int(os.stat(name).st_mtime) < oldest
            except OSError:
                continue  # taken by somebody, or looked at the next time
            if is_old:
                report(Result(name=name, letter=Letter.DEFERRAL, text=text))


def inherited() -> list[int]:
    """Descriptors above 2 that we were started with, or made inheritable."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            continue  # the one by which the directory was read
    return found


def connect(home: str, target: Target) -> tuple[socket.socket, str]:
    """A connection to the first address that accepts one, and that address.

    Raises: TempFail, PermFail when the name does not exist.
    """
    trouble = "no address"
    for address in _addresses(home, target.host):
        try:
            return _connected(address, target.port), address
        except OSError as exc:
            trouble = f"{address}: {exc.strerror or exc}"
    host = os.fsdecode(target.host)
    raise TempFail(f"unable to connect to {host} port {target.port}: {trouble}")


def _connected(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(_CONNECT_S)
        sock.connect((address, port))
        # Whole commands are written at once: waiting for more would only delay.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _addresses(home: str, host: bytes) -> Sequence[str]:
    """Raises: TempFail; PermFail when there is no such name."""
    literal = relay_literal(host)
    if literal is not None:
        return [literal]
    # Loaded only when there is something to send and a name to look up.
    dns = importlib.import_module("qsend.sysio.dns")
    content = read_control(home, "resolvers")
    controls = Controls()
    if content is not None:
        controls = parse_controls({"locals": b"", "me": b"me", "resolvers": content})

    async def ask() -> list[str]:
        asking = dns.Dns(controls.resolvers)
        try:
            return [found.address for found in await asking.relay_hosts(host)]
        finally:
            await asking.close()

    return asyncio.run(ask())
