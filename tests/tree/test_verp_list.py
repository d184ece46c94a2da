"""Mailing lists in ezmlm's way: a user's dot-qmail files, $DEFAULT, $SENDER, and VERP.

The same story is told by a program of our own and, where $EZMLM_HOME says where it is,
by ezmlm-idx itself.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree, until
from tests.tree.homes import Home, make_users
from tests.tree.listkinds import VARIABLE, EzmlmList, ListKind, OwnList
from tests.tree.test_delivery import contents
from tests.tree.test_mailing_list import FAR, Box, ask, recips_of, text_of

pytestmark = pytest.mark.root

LOCAL = "people-talk"
LIST = f"{LOCAL}@here.example"
VERP_FAR = f"{LOCAL}-return-%d-joe=far.example@here.example"
KINDS = [
    OwnList,
    pytest.param(
        EzmlmList,
        marks=pytest.mark.skipif(
            VARIABLE not in os.environ, reason=f"{VARIABLE} is not set: not run"
        ),
    ),
]


@dataclass
class Place:
    """A running tree with the people and the list."""

    tree: Tree
    homes: dict[str, Home]
    boxes: dict[str, Box]
    talk: ListKind

    def confirm(self, name: str, action: str) -> None:
        """Ask for something by mail and answer the question that comes back."""
        address = f"{name}@here.example"
        before = self.talk.members()
        ask(self.tree, address, f"{LOCAL}-{action}@here.example")
        question = self.boxes[name].next()
        word = {"subscribe": "sc", "unsubscribe": "uc"}[action]
        where = str(question["Reply-To"])
        want = rf"{LOCAL}-{word}\..+-{name}=here\.example@here\.example"
        assert re.fullmatch(want, where), where
        assert self.talk.members() == before
        ask(self.tree, address, where)
        until(lambda: self.talk.members() != before)


@pytest.fixture(params=KINDS, ids=["own", "ezmlm"])
def place(request: pytest.FixtureRequest, tree: Tree, open_tmp: Path) -> Place:
    homes = make_users(tree, open_tmp, "people", "ann", "bob", "boss")
    talk = request.param(tree, homes["people"], LOCAL, "boss@here.example")
    boxes = {name: Box(homes[name]) for name in ("ann", "bob", "boss")}
    return Place(tree=tree, homes=homes, boxes=boxes, talk=talk)


def test_subscribers_come_by_mail_get_posts_and_go(place: Place) -> None:
    tree, talk, boxes = place.tree, place.talk, place.boxes
    with Peer(LOCKSTEP) as far:
        tree.control("smtproutes", f":127.0.0.1:{far.port}\n")
        tree.start("--default-delivery", "./Maildir/")
        for name in ("ann", "bob"):
            place.confirm(name, "subscribe")
        talk.subscribe(FAR)
        assert talk.members() == {"ann@here.example", "bob@here.example", FAR}
        # A forged answer subscribes nobody.
        forged = f"{LOCAL}-sc.1.abc-boss=here.example@here.example"
        tree.queue([forged.encode()], sender=b"boss@here.example")
        tree.wait_for(rb"delivery \d+: (failure|success)")
        place.tree.wait_empty()
        assert "boss@here.example" not in talk.members()
        for box in boxes.values():
            box.skip()
        ask(tree, "ann@here.example", LIST, "first")
        assert f"<{LOCAL}-return-1-@here.example-@[]>".encode() in log_of(tree, far)
        for name in ("ann", "bob"):
            post = boxes[name].next()
            verp = f"<{LOCAL}-return-1-{name}=here.example@here.example>"
            assert post["Return-Path"] == verp
            assert post["Mailing-List"].startswith("contact ")
            assert text_of(post) == "first"
        assert f"MAIL FROM:<{VERP_FAR % 1}>".encode() in far.commands
        # What comes from a list, and what bounces, is not posted.
        text = b"Mailing-List: x\nSubject: x\nTo: <%b>\n\n" % LIST.encode()
        tree.queue([LIST.encode()], text, b"#@[]")
        tree.wait_for(rb"delivery \d+: failure: .*\(#5\.7\.\d\)/\n")
        # Mail for the owner; and somebody leaves.
        ask(tree, "bob@here.example", f"{LOCAL}-owner@here.example", "help")
        assert text_of(boxes["boss"].next()) == "help"
        place.confirm("bob", "unsubscribe")
        assert talk.members() == {"ann@here.example", FAR}
        tree.wait_empty()
        assert tree.stop() == 0


def log_of(tree: Tree, far: Peer) -> bytes:
    """The log until the far copy of a post has gone out."""
    tree.wait_for(rb"starting delivery \d+: msg \d+ to remote ")
    until(lambda: bool(far.contents))
    return tree.log


@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "returned"])
def test_subscriber_whose_mail_comes_back_is_probed_and_removed(
    place: Place, is_refused: bool
) -> None:
    tree, talk, boxes = place.tree, place.talk, place.boxes
    for address in ("ann@here.example", FAR):
        talk.subscribe(address)
    no = b"550 no such person"
    with Peer({**LOCKSTEP, "RCPT": no if is_refused else [b"250 ok", no]}) as far:
        tree.control("smtproutes", f":127.0.0.1:{far.port}\n")
        tree.start("--default-delivery", "./Maildir/")
        ask(tree, "bob@here.example", LIST, "first")
        if is_refused:
            # Our own bounce is for all recipients, and names them.
            back = f"{LOCAL}-return-1-@here.example"
        else:
            # Another host's is for the one whose address is in the sender's.
            until(lambda: bool(far.contents))
            back = VERP_FAR % 1
            tree.queue([back.encode()], b"Subject: failure notice\n\n", b"")
        until(talk.has_bounced)
        tree.find(rb"to local " + re.escape(back.encode()) + rb"\n")
        assert text_of(boxes["ann"].next()) == "first"
        # Warned, if the program does so first, and probed; the probe comes back.
        for count in (2, 3):
            if FAR in talk.members():
                talk.warn()
                until(partial(has_recips, far, count))
                tree.wait_empty()
        assert talk.members() == {"ann@here.example"}
        assert set(recips_of(far)) == {b"RCPT TO:<%b>" % FAR.encode()}
        assert tree.stop() == 0
    # Nobody else hears of it.
    for box in boxes.values():
        assert box.is_empty()


def has_recips(peer: Peer, count: int) -> bool:
    return len(recips_of(peer)) >= count


@pytest.mark.parametrize("default", [False, True], ids=["owner", "owner-default"])
def test_owner_of_a_forwarding_list_gets_its_bounces(
    tree: Tree, open_tmp: Path, default: bool
) -> None:
    homes = make_users(tree, open_tmp, "people", "ann")
    people = homes["people"]
    people.write(".qmail-friends", f"&ann@here.example\n&{FAR}\n")
    people.write(".qmail-friends-owner", "./Maildir/\n")
    people.write(".qmail-default", "|exit 100\n")
    if default:
        # Whose copy it was is in the address.
        people.write(
            ".qmail-friends-owner-default",
            '|echo "$DEFAULT $EXT2 [$SENDER]" >>gone\n./Maildir/\n',
        )
    with Peer({**LOCKSTEP, "RCPT": b"550 no such person"}) as far:
        tree.control("smtproutes", f":127.0.0.1:{far.port}\n")
        tree.start("--default-delivery", "./Maildir/")
        tree.queue([b"people-friends@here.example"], sender=b"bob@here.example")
        tree.wait_for(rb"end msg", count=3)
        owner = b"people-friends-owner%b@here.example"
        owner_far = owner % (b"-joe=far.example" if default else b"")
        assert b"MAIL FROM:<%b>" % owner_far in far.commands
        # A bounce that comes from afar, in answer to that.
        tree.queue([owner_far], b"Subject: from afar\n\n", b"")
        tree.wait_for(rb"end msg")
        tree.wait_empty()
        assert tree.stop() == 0
    bounces = contents(people.home / "Maildir")
    assert {each.split(b"\n")[1] for each in bounces} == {
        b"Delivered-To: " + each for each in (owner % (b"-" * default), owner_far)
    }
    assert len(bounces) == 2
    [ours] = [each for each in bounces if b"failure notice" in each]
    assert b"\n<joe@far.example>:\n127.0.0.1 does not like recipient.\n" in ours
    [post] = contents(homes["ann"].home / "Maildir")
    owner_ann = owner % (b"-ann=here.example" if default else b"")
    assert post.startswith(b"Return-Path: <%b>\n" % owner_ann)
    if default:
        # EXT2 is what follows the first hyphen of the extension.
        said = (people.home / "gone").read_text()
        assert said == " owner- []\njoe=far.example owner-joe=far.example []\n"
