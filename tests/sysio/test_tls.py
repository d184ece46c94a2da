"""TLS by bytes against the ssl module's own client."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import pytest

from qsend.core.errors import ConfigError, RemoteProtocolError
from qsend.core.model import Account
from qsend.sysio import sandbox
from qsend.sysio.fork import fork_child
from qsend.sysio.privilege import drop, harden
from qsend.sysio.tls import TlsBytes, server_context


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
            "/CN=localhost", "-keyout", f"{path}.key", "-out", path,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return path.read_bytes() + Path(f"{path}.key").read_bytes()


class Client:
    """The other end."""

    def __init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing)

    def shake(self, server: TlsBytes, size: int) -> None:
        """Do the handshake, `size` bytes at a time."""
        for _ in range(10):
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                pass
            data = self.outgoing.read()
            for at in range(0, len(data), size):
                assert server.feed(data[at : at + size]) == b""
            self.incoming.write(server.output())
            if server.is_open and not data:
                return
        raise AssertionError("no end of the handshake")

    def say(self, plain: bytes) -> bytes:
        self.object.write(plain)
        return self.outgoing.read()


@pytest.mark.parametrize("size", [1, 3, 100000])
def test_bytes_go_both_ways_however_they_are_cut(pem: bytes, size: int) -> None:
    server, client = TlsBytes(server_context(pem)), Client()
    client.shake(server, size)
    wanted = b"x" * 50000
    data, got = client.say(wanted), b""
    for at in range(0, len(data), size):
        got += server.feed(data[at : at + size])
    assert got == wanted
    server.send(b"answer")
    client.incoming.write(server.output())
    assert client.object.read() == b"answer"
    ended = [server.is_ended]
    with pytest.raises(ssl.SSLWantReadError):
        client.object.unwrap()
    assert server.feed(client.outgoing.read()) == b""
    ended.append(server.is_ended)
    assert ended == [False, True]
    server.close()
    client.incoming.write(server.output())
    client.object.unwrap()


def test_what_is_no_tls_is_refused(pem: bytes) -> None:
    server = TlsBytes(server_context(pem))
    with pytest.raises(RemoteProtocolError, match="TLS"):
        server.feed(b"USER ann\r\nPASS x\r\n")


@pytest.mark.parametrize("change", ["key", "garbage", "empty"])
def test_certificate_that_cannot_be_used_is_told(pem: bytes, change: str) -> None:
    key = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True
    ).stdout
    bad = {
        "key": pem[: pem.index(b"-----BEGIN PRIVATE")] + key,
        "garbage": pem.replace(b"M", b"N"),
        "empty": b"",
    }[change]
    with pytest.raises(ConfigError, match=r"control/servercert\.pem: certificate and"):
        server_context(bad)


def test_key_with_a_pass_phrase_asks_nobody(pem: bytes) -> None:
    at = pem.index(b"-----BEGIN PRIVATE")
    locked = subprocess.run(
        ["openssl", "pkey", "-aes128", "-passout", "pass:secret"],
        input=pem[at:], capture_output=True, check=True,
    ).stdout  # fmt: skip
    with pytest.raises(ConfigError):
        server_context(pem[:at] + locked)


@pytest.mark.root
def test_confined_process_without_files_can_load_another_certificate(
    pem: bytes,
) -> None:
    def load() -> int:
        drop(Account(uid=64123, gid=64123))
        harden()
        sandbox.apply("pop3d")
        server_context(pem)
        return 0

    pid = fork_child(load, ())
    assert os.waitpid(pid, 0)[1] == 0
