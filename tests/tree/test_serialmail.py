"""Mail for a host that dials in: into a maildir by the tree, out by maildirpush."""

from __future__ import annotations

import os

from tests.smtppeer import PIPELINED, Peer
from tests.tree.harness import Tree


def test_mail_of_a_virtual_domain_is_pushed_and_what_is_refused_comes_back(
    tree: Tree,
) -> None:
    tree.control("virtualdomains", "some.example.com:dial\n")
    base = tree.home / "alias/serialmail"
    base.mkdir()
    directory = base / "some.example.com"
    directory.mkdir()
    owner = (tree.home / "alias").stat()
    for path in (base, directory):
        os.chown(path, owner.st_uid, owner.st_gid)
    tree.maildir("Maildir", directory)
    tree.alias(
        "dial-default", f"./{directory.relative_to(tree.home / 'alias')}/Maildir/\n"
    )
    returned = tree.maildir("returned")
    tree.alias("me", "./returned/\n")
    (directory / "PREFIX").write_text("dial-\n")
    tree.start()
    recips = [
        b"joe@some.example.com",
        b'o"odd one@some.example.com',
        b"gone@some.example.com",
    ]
    for recip in recips:
        tree.send([recip], sender=b"me@here.example")
        tree.wait_for(rb"end msg")
    refusal = [b"250 ok", b"250 ok", b"550 no such person"]
    with Peer(
        {**PIPELINED, "RCPT": refusal, "DATA": [b"354 go", b"354 go", b"503 x"]}
    ) as peer:
        (directory / "RELAYHOST").write_text(f"[127.0.0.1]:{peer.port}\n")
        # The mail of this second is left for the next run.
        for path in (directory / "Maildir/new").iterdir():
            os.utime(path, (path.stat().st_mtime - 60,) * 2)
        done = tree.program("maildirpush", str(base))
        assert done.returncode == 0, done.stderr
        assert set(peer.commands) >= {
            b"EHLO here.example",
            b"MAIL FROM:<me@here.example>",
            b"RCPT TO:<joe@some.example.com>",
            b'RCPT TO:<"o\\"odd one"@some.example.com>',
            b"RCPT TO:<gone@some.example.com>",
        }
        assert len(peer.contents) == 2
    assert list((directory / "Maildir/new").iterdir()) == []
    tree.wait_for(rb"end msg")
    (bounce,) = (returned / "new").iterdir()
    text = bounce.read_bytes()
    assert b"<gone@some.example.com>:\n127.0.0.1 said: 550 no such person\n" in text
    assert text.startswith(b"Return-Path: <>\nDelivered-To: me@here.example\n")
    assert tree.stop() == 0
