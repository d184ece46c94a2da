"""mlmmj, a list manager of Debian, driven by a user's dot-qmail files.

It reads $DEFAULT and $SENDER, and hands in its mail by SMTP.
"""

from __future__ import annotations

import email
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.ports import free_port
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree, until
from tests.tree.homes import Home, make_users

pytestmark = pytest.mark.root

LIST = "talk@here.example"
FAR = "joe@far.example"
MEMBERS = ("ann@here.example", "bob@here.example", FAR)


class Gateway:
    """An SMTP server that queues what it takes."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def handle_DATA(
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        self._tree.queue(
            [each.encode() for each in envelope.rcpt_tos],
            envelope.content.replace(b"\r\n", b"\n"),
            (envelope.mail_from or "").encode(),
        )
        return "250 queued"


@contextmanager
def serving(tree: Tree) -> Iterator[int]:
    """A gateway; its port."""
    port = free_port()
    controller = Controller(Gateway(tree), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def make_list(home: Home, smtp_port: int) -> Path:
    """The list of the user: made as its README for qmail says; its directory."""
    name = LIST.partition("@")[0]
    subprocess.run(
        ["mlmmj-make-ml", "-s", home.home, "-L", name],
        input=b"here.example\nboss@here.example\nen\n",
        check=True,
        capture_output=True,
    )
    made = home.home / name
    for key, value in (
        ("delimiter", "-"),
        ("relayhost", "127.0.0.1"),
        ("smtpport", str(smtp_port)),
        ("smtphelo", "here.example"),
        ("subonlypost", ""),
    ):
        (made / "control" / key).write_text(f"{value}\n")
    home.own(made)
    for ext in ("", "-default"):
        home.write(f".qmail{ext}", f"|/usr/bin/mlmmj-receive -L {made}\n", 0o600)
    return made


class Box:
    """The Maildir of a user, read one message after the other."""

    def __init__(self, home: Home) -> None:
        self._new = home.home / "Maildir/new"
        self._seen: set[str] = set()

    def next(self) -> Message:
        """Wait for a message; the next in no order."""
        until(lambda: bool(self._unseen()))
        path = self._unseen()[0]
        self._seen.add(path.name)
        return email.message_from_bytes(path.read_bytes())

    def skip(self) -> None:
        """Pass over what is there now."""
        self._seen.update(path.name for path in self._unseen())

    def is_empty(self) -> bool:
        return not self._unseen()

    def _unseen(self) -> list[Path]:
        return [path for path in self._new.iterdir() if path.name not in self._seen]


def ask(tree: Tree, sender: str, recip: str, text: str = "") -> None:
    """Send a message as people do, with both addresses in its header."""
    header = f"From: <{sender}>\nTo: <{recip}>\nSubject: about this\n"
    message = f"{header}Message-ID: <{text}@here.example>\n\n{text}\n"
    tree.queue([recip.encode()], message.encode(), sender.encode())


def text_of(message: Message) -> str:
    """The body of a message of `ask`, without what a list manager adds at its end."""
    return str(message.get_payload()).strip()


def recips_of(peer: Peer) -> list[bytes]:
    return [each for each in peer.commands if each.startswith(b"RCPT")]


def test_list_of_mlmmj(tree: Tree, open_tmp: Path) -> None:
    homes = make_users(tree, open_tmp, "talk", "ann", "bob", "boss")
    boxes = {name: Box(homes[name]) for name in ("ann", "bob", "boss")}
    refusing = {**LOCKSTEP, "RCPT": [b"250 ok", b"550 gone"]}
    with serving(tree) as port, Peer(refusing) as far:
        tree.control("smtproutes", f":127.0.0.1:{far.port}\n")
        made = make_list(homes["talk"], port)
        subscribers = made / "subscribers.d"

        def members() -> set[str]:
            texts = [path.read_text() for path in subscribers.iterdir()]
            return {line for text in texts for line in text.split("\n") if line}

        tree.start("--default-delivery", "./Maildir/")
        # Subscribing: a question, an answer, a welcome.
        for name in ("ann", "bob"):
            address = f"{name}@here.example"
            ask(tree, address, "talk-subscribe@here.example")
            question = boxes[name].next()
            where = str(question["Reply-To"] or question["From"])
            where = where.strip("<>")
            assert re.fullmatch(r"talk-confsub-.*@here\.example", where), where
            assert members().isdisjoint({address})
            ask(tree, address, where)
            assert "Welcome" in boxes[name].next()["Subject"]
            assert address in members()
        subscribe = ["/usr/bin/mlmmj-sub", "-s", "-L", str(made), "-a", FAR]
        tree.call(subscribe, uid=homes["talk"].uid)
        assert members() == set(MEMBERS)
        # A post, and the envelope's sender that tells whose copy comes back.
        ask(tree, "ann@here.example", LIST, "first")
        for name in ("ann", "bob"):
            post = boxes[name].next()
            verp = f"<talk-bounces-1-{name}=here.example@here.example>"
            assert post["Return-Path"] == verp
            assert post["To"] == f"<{LIST}>"
        until(lambda: len(far.contents) == 1)
        verp_far = b"<talk-bounces-1-joe=far.example@here.example>"
        assert b"MAIL FROM:" + verp_far in far.commands
        # The next one is refused there; its bounce is noted.
        ask(tree, "bob@here.example", LIST, "second")
        until(lambda: len(recips_of(far)) == 2)
        noted = made / "bounce/joe=far.example"
        until(lambda: noted.exists() and noted.read_text().startswith("2:"))
        for name in ("ann", "bob"):
            post = boxes[name].next()
            assert text_of(post) == "second"
            assert f"talk-bounces-2-{name}=" in post["Return-Path"]
        # What the owner gets: mail for him, and nothing else.
        assert boxes["boss"].is_empty()
        ask(tree, "bob@here.example", "talk-owner@here.example", "help me")
        assert text_of(boxes["boss"].next()) == "help me"
        # Whoever is no member may not post, and unsubscribes nobody.
        ask(tree, "boss@here.example", LIST, "intruder")
        assert "denied" in boxes["boss"].next()["Subject"]
        ask(tree, "bob@here.example", "talk-unsubscribe@here.example")
        question = boxes["bob"].next()
        where = str(question["Reply-To"] or question["From"]).strip("<>")
        ask(tree, "bob@here.example", where)
        assert "Goodbye" in boxes["bob"].next()["Subject"]
        assert members() == {"ann@here.example", FAR}
        tree.wait_empty()
        assert tree.stop() == 0
    assert boxes["ann"].is_empty()
