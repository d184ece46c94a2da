"""dot-qmail files and virtual domains of users, as a qmail howto teaches them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import Tree
from tests.tree.homes import Account
from tests.tree.test_delivery import contents
from tests.tree.test_reload import reload

pytestmark = pytest.mark.root

SAYING = "|echo {said} with ${{DEFAULT-nothing}}\n"


class Files:
    """The account's dot-qmail files: programs that say their names."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def write(self, *names: str) -> None:
        for name in names:
            self._account.write(f".qmail-{name}", SAYING.format(said=name or "empty"))

    def remove(self, name: str) -> None:
        (self._account.home / f".qmail-{name}").unlink()


@pytest.fixture
def files(account: Account) -> Files:
    return Files(account)


def answer(tree: Tree, recip: str) -> str:
    """What is reported on one message."""
    tree.queue([recip.encode()], sender=b"#@[]")
    found = tree.wait_for(rb"(?m)^delivery \d+: (.*)$")[1].decode()
    if found.endswith("(#5.1.1)/"):
        return "nobody"
    return found.removeprefix("success: ").removesuffix("/did_0+0+1/")


def test_extension_addresses_of_a_user(
    account: Account, files: Files, tree: Tree
) -> None:
    name = account.name
    maildir = account.maildir(tree)
    account.write(".qmail-info", "# asks me and others\n./Maildir/\n&bob@far.example\n")
    account.write(".qmail-team", f"{name}-info\nann@far.example\n\njoe@far.example\n")
    files.write("foo-bar", "dot:ted")
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start("--default-delivery", "./Maildir/")
        # Without a file the plain address has the default delivery, others nobody.
        assert answer(tree, f"{name}@here.example") == "did_1+0+0/"
        assert answer(tree, f"{name}-@here.example") == "nobody"
        assert answer(tree, f"{name}-foo@here.example") == "nobody"
        assert answer(tree, f"{name}-Foo-BAR@here.example") == "foo-bar_with_nothing"
        assert answer(tree, f"{name}-dot.ted@here.example") == "dot:ted_with_nothing"
        # The chain: the file of foo-bar, then of foo-*, then of all.
        files.write("foo-default")
        assert answer(tree, f"{name}-foo-bar@here.example") == "foo-bar_with_nothing"
        assert answer(tree, f"{name}-foo-X@here.example") == "foo-default_with_X"
        assert answer(tree, f"{name}-foo-X-y@here.example") == "foo-default_with_X-y"
        assert answer(tree, f"{name}-foo-@here.example") == "foo-default_with"
        assert answer(tree, f"{name}-foo@here.example") == "nobody"
        files.write("default")
        assert answer(tree, f"{name}-foo@here.example") == "default_with_foo"
        assert answer(tree, f"{name}-foo-X@here.example") == "foo-default_with_X"
        files.remove("foo-bar")
        assert answer(tree, f"{name}-foo-Bar@here.example") == "foo-default_with_Bar"
        files.remove("foo-default")
        assert answer(tree, f"{name}-foo-Bar@here.example") == "default_with_foo-Bar"
        # The plain address is not among them.
        assert answer(tree, f"{name}@here.example") == "did_1+0+0/"
        # A distribution list, with a list in it.
        tree.queue([f"{name}-team@here.example".encode()])
        tree.wait_for(rb"end msg", count=3)
        tree.wait_empty()
        assert tree.stop() == 0
        rcpts = sorted(each for each in peer.commands if each.startswith(b"RCPT"))
        assert rcpts == [
            b"RCPT TO:<%b@far.example>" % each for each in (b"ann", b"bob", b"joe")
        ]
    assert len(contents(maildir)) == 3


def test_virtual_domains_of_a_user(account: Account, files: Files, tree: Tree) -> None:
    name = account.name
    files.write("info", "example-info", "example-default", "example2-info")
    tree.control(
        "virtualdomains",
        f"plain.example:{name}\nexample.com:{name}-example\n"
        f"example2.com:{name}-example2\n.example2.com:{name}-example2\n"
        f"boss@other.example:{name}-example\n",
    )
    # As the howto shows it: nobody but root may read it.
    path = tree.home / "control/virtualdomains"
    path.chmod(0o600)
    tree.start("--default-delivery", "./Maildir/")
    # One file serves the address of the domain and the user's own.
    assert answer(tree, "Info@Plain.Example") == "info_with_nothing"
    assert answer(tree, f"{name}-info@here.example") == "info_with_nothing"
    assert answer(tree, "sales@plain.example") == "nobody"
    # With an extension, several domains keep out of each other's way.
    assert answer(tree, "info@example.com") == "example-info_with_nothing"
    assert answer(tree, "info@example2.com") == "example2-info_with_nothing"
    assert answer(tree, "info@mail.example2.com") == "example2-info_with_nothing"
    assert answer(tree, "Any.One@example.com") == "example-default_with_Any.One"
    assert answer(tree, "any@example2.com") == "nobody"
    assert answer(tree, f"{name}-example-x@here.example") == "example-default_with_x"
    # A single address of a domain that is not ours.
    assert answer(tree, "boss@other.example") == "example-default_with_boss"
    tree.queue([b"gone@example2.com"], sender=b"info@plain.example")
    tree.wait_for(rb"end msg", count=1)
    tree.wait_empty()
    assert tree.stop() == 0
    assert f"to local {name}-example2-gone@example2.com\n".encode() in tree.log


def test_domains_change_with_hup(account: Account, files: Files, tree: Tree) -> None:
    name = account.name
    files.write("info", "new-info")
    maildir = account.maildir(tree)

    def lead(recip: str) -> str:
        """Where the next message goes."""
        tree.queue([recip.encode()], sender=b"#@[]")
        found = tree.wait_for(rb"starting delivery \d+: msg \d+ to (.*)\n")[1]
        tree.wait_for(rb"end msg")
        return found.decode()

    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.control("virtualdomains", f"a.example:{name}\n")
        tree.start("--default-delivery", "./Maildir/")
        assert lead("info@a.example") == f"local {name}-info@a.example"
        assert lead("info@b.example") == "remote info@b.example"
        tree.control("virtualdomains", f"a.example:{name}-new\nb.example:{name}\n")
        # Not before it is told.
        assert lead("info@b.example") == "remote info@b.example"
        reload(tree, 2)
        assert lead("info@a.example") == f"local {name}-new-info@a.example"
        assert lead("info@b.example") == f"local {name}-info@b.example"
        # A domain that becomes local, one that goes away, one that is excepted.
        tree.control("locals", "here.example\nb.example\n")
        tree.control(
            "virtualdomains", f"b.example:{name}\n.c.example:{name}\nx.c.example:\n"
        )
        reload(tree, 3)
        assert lead("info@a.example") == "remote info@a.example"
        # locals comes first.
        assert lead(f"{name}@b.example") == f"local {name}@b.example"
        assert lead("info@y.c.example") == f"local {name}-info@y.c.example"
        assert lead("info@x.c.example") == "remote info@x.c.example"
        (tree.home / "control/virtualdomains").unlink()
        reload(tree, 4)
        assert lead("info@y.c.example") == "remote info@y.c.example"
        tree.wait_empty()
        assert tree.stop() == 0
        assert len(peer.contents) == 5
    [content] = contents(maildir)
    assert b"Delivered-To: %b@b.example\n" % os.fsencode(name) in content


def test_users_may_make_files_but_others_may_not_change_them(
    account: Account, files: Files, tree: Tree
) -> None:
    files.write("mine")
    path = Path(account.home, ".qmail-mine")
    tree.start()
    recip = f"{account.name}-mine@here.example"
    path.chmod(0o600)
    assert answer(tree, recip) == "mine_with_nothing"
    path.chmod(0o602)
    assert answer(tree, recip).startswith("deferral: ")
    # Nobody's file in a home of one's own counts as well: the home decides.
    os.chown(path, 64999, 64999)
    path.chmod(0o644)
    assert answer(tree, recip) == "mine_with_nothing"
    # Whoever may not read it has to wait.
    path.chmod(0o600)
    assert answer(tree, recip).startswith("deferral: ")
