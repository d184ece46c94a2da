"""qmail-remote as a program, and TLS: the control files are its own to read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.certificates import Authority, server_context
from tests.smtppeer import PIPELINED, Odd, Peer

SCRIPT = (
    "import sys; from qsend.cli.qmail_remote import main; sys.exit(main(sys.argv[1:]))"
)
OFFER = b"250-peer\r\n250-STARTTLS\r\n250 AUTH PLAIN"
SECURE = PIPELINED | {"EHLO": OFFER, "STAR": b"220 go", "AUTH": b"235 ok"}
ACCEPTED = b"r\0K127.0.0.1 accepted message.\nRemote host said: 250 ok\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def home(open_tmp: Path) -> Path:
    (open_tmp / "control").mkdir()
    (open_tmp / "queue/lock").mkdir(parents=True)
    (open_tmp / "control/me").write_text("me.example\n")
    return open_tmp


def deliver(home: Path, peer: Peer, uid: int | None = None) -> bytes:
    (home / "control/smtproutes").write_text(f":127.0.0.1:{peer.port}\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "d.example", "s@h", "r@d.example"],
        input=b"Subject: x\n\nhello\n",
        capture_output=True,
        timeout=60,
        check=True,
        user=uid,
        env={**os.environ, "QSEND_HOME": str(home), "PYTHONPATH": os.getcwd()},
    )
    return done.stdout


def test_relay_is_verified_shown_a_certificate_and_logged_in_to(
    home: Path, authority: Authority
) -> None:
    control = home / "control"
    (control / "tlspolicy").write_text("127.0.0.1:verify\n")
    (control / "tlscafile").write_bytes(authority.pem)
    (control / "smtpauth").write_text("127.0.0.1:ann:pa:ss\n")
    (control / "clientcert.pem").write_bytes(authority.certify("DNS:me.example"))
    certificate = authority.certify("IP:127.0.0.1", common="peer")
    with Peer(SECURE, tls=server_context(certificate, authority.pem)) as peer:
        out = deliver(home, peer)
        assert peer.served[0].client_cert
    assert out == ACCEPTED + b"TLSv1.3 TLS_AES_256_GCM_SHA384 peer verified\n\0"
    assert b"AUTH PLAIN AGFubgBwYTpzcw==" in peer.commands


def test_failed_handshake_is_followed_by_clear(home: Path) -> None:
    with Peer(SECURE | {"TLS": Odd.CLOSE}) as peer:
        assert deliver(home, peer) == ACCEPTED + b"\0"
        assert len(peer.served) == 2


def test_unusable_policy_is_a_deferral(home: Path) -> None:
    (home / "control/tlspolicy").write_text(":sometimes\n")
    with Peer(SECURE) as peer:
        out = deliver(home, peer)
    assert out.startswith(b"ZUnable to use the controls: control/tlspolicy:1: expected")
    assert peer.served == []


@pytest.mark.root
def test_password_that_cannot_be_read_is_a_deferral(home: Path) -> None:
    (home / "control/smtpauth").write_text("127.0.0.1:ann:pa:ss\n")
    (home / "control/smtpauth").chmod(0o600)
    with Peer(SECURE) as peer:
        out = deliver(home, peer, uid=64901)
    assert out.startswith(b"ZUnable to use the controls: ")
    assert b"smtpauth" in out
    assert peer.served == []
