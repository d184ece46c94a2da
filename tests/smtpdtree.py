"""A running tree that takes mail by SMTP, and clients of it.

Listeners: `port` for everybody, `submission` for those who log in, `tls_port` the same
with TLS from the first byte.
"""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pwd import getpwnam
from types import TracebackType

from tests.tree.harness import HOST, Tree

WAIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class SmtpTree:
    """A tree, its ports, and the certificate that it has."""

    tree: Tree
    port: int
    submission: int
    tls_port: int
    certificate: Path

    def start(self) -> None:
        """Run it, with mail for alias in ~alias/Maildir."""
        self.tree.start("--default-delivery", "./Maildir/")

    def context(self) -> ssl.SSLContext:
        """What a careful client checks the server with."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def rules(self, text: str) -> None:
        """Make control/tcp.smtp.cdb."""
        path = self.tree.home / "control/tcp.smtp.cdb"
        command = self.tree.command("tcprules")[:4]
        self.tree.call([*command, str(path), f"{path}.tmp"], stdin=text.encode())

    @contextmanager
    def client(self, port: int | None = None) -> Iterator[smtplib.SMTP]:
        """A client after EHLO; without QUIT at the end."""
        made = smtplib.SMTP("localhost", port or self.port, "c.example", timeout=60)
        try:
            made.ehlo()
            yield made
        finally:
            made.close()

    def raw(self, port: int | None = None) -> Raw:
        """A client that sends what it likes."""
        return Raw(port or self.port)

    def queued(self) -> list[Path]:
        """The messages in the queue."""
        return sorted((self.tree.home / "queue/mess").glob("*/*"))


class Raw:
    """A client that sends what it likes."""

    def __init__(
        self, port: int, source: str = "127.0.0.1", header: bytes = b""
    ) -> None:
        self.sock: socket.socket = socket.create_connection(
            ("127.0.0.1", port), WAIT_S, (source, 0)
        )
        self._stream = self.sock.makefile("rb")
        self.send(header)
        self.greeting = self.line()

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def half_close(self) -> None:
        """Say nothing more, and listen."""
        self.sock.shutdown(socket.SHUT_WR)

    def line(self) -> bytes:
        """The next line of the server; b"" at its end."""
        try:
            return self._stream.readline()
        except ConnectionResetError:
            return b""

    def reply(self) -> bytes:
        """The next reply, with all its lines."""
        lines = [self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.line())
        return b"".join(lines)

    def ask(self, line: bytes) -> bytes:
        """Send a line; the reply."""
        self.send(line + b"\r\n")
        return self.reply()

    def codes(self, data: bytes, count: int) -> list[int]:
        """Send `data`; the codes of the replies to it."""
        self.send(data)
        return [int(self.reply()[:3] or b"0") for _ in range(count)]

    def rest(self) -> bytes:
        """All that comes until the server hangs up."""
        try:
            return self._stream.read()
        except ConnectionResetError:
            return b""

    def start_tls(self) -> None:
        """Go on inside TLS, whatever the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock)
        self._stream.close()
        self._stream = self.sock.makefile("rb")


@contextmanager
def tcpserver(smtp: SmtpTree, *options: str) -> Iterator[int]:
    """bin/qmail-smtpd under Debian's tcpserver, as qmaild; the port."""
    entry = getpwnam("qmaild")
    command = [
        "tcpserver", "-1", "-H", "-R", "-l", "here.example", "-c", "400", "-b", "100",
        "-u", str(entry.pw_uid), "-g", str(entry.pw_gid), *options, "127.0.0.1", "0",
        str(smtp.tree.home / "bin/qmail-smtpd"),
    ]  # fmt: skip
    environ = {"PATH": os.environ["PATH"]}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def set_up(tree: Tree, pem: tuple[Path, bytes], ports: list[int]) -> SmtpTree:
    """The tree with its controls; not started."""
    port, submission, tls_port = ports
    tree.control(
        "smtplisten",
        f"127.0.0.1:{port}\n127.0.0.1:{submission} submission\n"
        f"127.0.0.1:{tls_port} tls submission\n",
    )
    tree.control("rcpthosts", f"{HOST}\n.sub.example\n")
    certificate = tree.home / "control/servercert.pem"
    certificate.write_bytes(pem[1])
    certificate.chmod(0o600)
    os.chown(certificate, tree.uid, -1)
    return SmtpTree(
        tree=tree,
        port=port,
        submission=submission,
        tls_port=tls_port,
        certificate=pem[0],
    )
