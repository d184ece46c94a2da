"""TLS to other servers in a whole tree: secrets handed over, and what the log says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import Authority, server_context
from tests.smtppeer import PIPELINED, Peer
from tests.tree.harness import Tree

OFFER = b"250-peer\r\n250-STARTTLS\r\n250 AUTH PLAIN"
SECURE = PIPELINED | {"EHLO": OFFER, "STAR": b"220 go", "AUTH": b"235 ok"}


@pytest.mark.root
def test_relay_gets_what_only_root_may_read(tree: Tree, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.certify("IP:127.0.0.1", common="relay.example")
    context = server_context(certificate, authority.pem)
    with Peer(SECURE, tls=context) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.control("tlspolicy", "127.0.0.1:verify\n")
        tree.control("tlscafile", authority.pem.decode())
        for name, content in (
            ("smtpauth", "127.0.0.1:ann:hush-hush\n"),
            ("clientcert.pem", authority.certify("DNS:here.example").decode()),
        ):
            tree.control(name, content)
            (tree.home / "control" / name).chmod(0o600)
        tree.start()
        tree.send([b"r@far.example"])
        report = tree.find(rb"delivery \d+: success: (.*)\n")[1]
        tree.wait_for(b"end msg")
        assert peer.served[0].client_cert
        # A new password and policy come by HUP to processes that can read nothing.
        tree.control("smtpauth", "127.0.0.1:ann:other\n")
        tree.control("tlspolicy", ":encrypt\n")
        tree.ask("reload")
        tree.wait_for(b"reread controls")
        tree.send([b"r@far.example"])
        tree.wait_for(b"_unverified")
    words = b"/TLSv1.3_TLS_AES_256_GCM_SHA384_relay.example_verified/"
    assert report.endswith(words)
    logins = [c for c in peer.commands if c.startswith(b"AUTH")]
    assert logins == [
        b"AUTH PLAIN AGFubgBodXNoLWh1c2g=",
        b"AUTH PLAIN AGFubgBvdGhlcg==",
    ]
