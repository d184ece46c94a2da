"""A running tree with POP3 listeners and a mailbox of an account of the machine."""

from __future__ import annotations

import os
import poplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pwd import getpwnam

import psutil
import pytest

from tests.ports import free_ports
from tests.tree.conftest import installation as installation
from tests.tree.conftest import login as login
from tests.tree.harness import Installation, Tree, until

PASSWORD = "pass word \xe9"


@dataclass(frozen=True, kw_only=True)
class PopTree:
    """A tree, its two ports, and the certificate that it has."""

    tree: Tree
    port: int
    tls_port: int
    certificate: Path

    def context(self) -> ssl.SSLContext:
        """What a careful client checks the server with."""
        return ssl.create_default_context(cafile=str(self.certificate))

    @contextmanager
    def client(self, *, tls: bool = False) -> Iterator[poplib.POP3]:
        """A client before its login; without QUIT at the end."""
        made: poplib.POP3
        if tls:
            made = poplib.POP3_SSL(
                "localhost", self.tls_port, context=self.context(), timeout=60
            )
        else:
            made = poplib.POP3("localhost", self.port, timeout=60)
        try:
            yield made
        finally:
            made.close()

    @contextmanager
    def session(self, name: str, secret: str = PASSWORD) -> Iterator[poplib.POP3]:
        """A client after its login."""
        with self.client() as made:
            made.encoding = "UTF-8"
            made.user(name)
            made.pass_(secret)
            yield made


def make_certificate(path: Path) -> bytes:
    """A self-signed certificate for localhost and its key; PEM of both."""
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
            "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", f"{path}.key", "-out", path,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return path.read_bytes() + Path(f"{path}.key").read_bytes()


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    return path, make_certificate(path)


@pytest.fixture
def unstarted(
    mailbox: str, installation: Installation, open_tmp: Path, pem: tuple[Path, bytes]
) -> Iterator[PopTree]:
    """The tree, set up and not started.

    It goes before the account does: an account with processes cannot be removed.
    """
    with Tree(installation, open_tmp / "home") as tree:
        port, tls_port = free_ports(2)
        tree.control(
            "pop3listen", f"127.0.0.1:{port}\n127.0.0.1:{tls_port} tls\n[::1]:{port}\n"
        )
        tree.control("systemlogins", "1\n")
        put_certificate(tree, pem[1])
        yield PopTree(tree=tree, port=port, tls_port=tls_port, certificate=pem[0])
    uid = getpwnam(mailbox).pw_uid
    until(lambda: not any(is_of(each, uid) for each in psutil.process_iter()))


def is_of(process: psutil.Process, uid: int) -> bool:
    try:
        running = process.status() != psutil.STATUS_ZOMBIE
        return running and process.uids().real == uid
    except psutil.NoSuchProcess:
        return False


def put_certificate(tree: Tree, pem: bytes) -> None:
    path = tree.home / "control/servercert.pem"
    path.write_bytes(pem)
    path.chmod(0o600)


@pytest.fixture
def pop(unstarted: PopTree) -> PopTree:
    """The tree, running."""
    unstarted.tree.start("--default-delivery", "./Maildir/")
    return unstarted


@pytest.fixture
def mailbox(login: str, open_tmp: Path) -> str:
    """An account of the machine with a maildir and the password PASSWORD."""
    told = f"{login}:{PASSWORD}\n".encode()
    subprocess.run(["chpasswd"], input=told, check=True, capture_output=True)
    for name in ("", "tmp", "new", "cur"):
        (open_tmp / login / "Maildir" / name).mkdir()
    own(open_tmp / login, login)
    return login


def own(top: Path, login: str) -> None:
    entry = getpwnam(login)
    for path in (top, *top.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid)


def add_message(
    home: Path, login: str, name: str, content: bytes = b"Subject: x\n\nbody\n"
) -> Path:
    """A message in the account's maildir; `name` as `new/1.a`."""
    path = home / "Maildir" / name
    path.write_bytes(content)
    entry = getpwnam(login)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    return path


class Raw:
    """A client that sends what it likes."""

    def __init__(self, port: int) -> None:
        self._sock: socket.socket = socket.create_connection(("127.0.0.1", port), 60)
        self._stream = self._sock.makefile("rb")
        self.greeting = self._stream.readline()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self._sock.close()

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def half_close(self) -> None:
        """Say nothing more, and listen."""
        self._sock.shutdown(socket.SHUT_WR)

    def line(self) -> bytes:
        """The next line of the server; b"" at its end."""
        return self._stream.readline()

    def ask(self, line: bytes) -> bytes:
        """Send a line; the answer."""
        self.send(line + b"\r\n")
        return self.line()

    def rest(self) -> bytes:
        """All that comes until the server hangs up."""
        return self._stream.read()

    def start_tls(self) -> None:
        """Go on inside TLS, whatever the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._sock = context.wrap_socket(self._sock)
        self._stream.close()
        self._stream = self._sock.makefile("rb")
