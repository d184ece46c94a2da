"""A provider's set-up for its customers' domains, as one described it in 1997.

POP boxes of virtual users that all belong to one account, a relay for a customer
with a mail server of his own, and a Maildir for one who dials in.
"""

from __future__ import annotations

import email
import os
import subprocess
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.smtppeer import PIPELINED, Peer
from tests.tree.harness import HOST, Tree
from tests.tree.homes import Home, assign
from tests.tree.test_delivery import contents
from tests.tree.test_reload import reload

pytestmark = pytest.mark.root

POPUSR = 64510
POPGRP = 64051
"""Of popusr, which needs no account of the machine."""

DOMAIN = "example.com"
DIAL_IN = "some.example.com"
RELAYED = "second-example.com"
BOXES = ("ex1-0000", "ex1-0001", "ex1-0002")
CONTROLS = {
    "rcpthosts": f"{HOST}\n{DOMAIN}\n.{DOMAIN}\n{RELAYED}\n.{RELAYED}\n",
    "virtualdomains": f"{DOMAIN}:{DOMAIN}\n.{DOMAIN}:{DOMAIN}\n{DIAL_IN}:{DIAL_IN}\n",
}
REFUSING_THE_LAST = {
    **PIPELINED,
    "RCPT": [b"250 ok"] * 3 + [b"550 no such person"],
    "DATA": [b"354 go"] * 3 + [b"503 nobody wants it"],
}


@dataclass
class Provider:
    """The set-up, without a running tree."""

    tree: Tree
    root: Path
    pop: Home = field(init=False)
    domain: Home = field(init=False)
    serial: Home = field(init=False)

    def __post_init__(self) -> None:
        customer = self.root / "popmail/e/ex1"
        self.pop = self._home(customer / "POP")
        self.domain = self._home(customer / "DOMAINS" / DOMAIN)
        self.serial = self._home(self.root / "serialmail" / DIAL_IN)
        for box in BOXES:
            self.pop.maildir(self.tree, box)
        self.deliver("joe", "ex1-0001")
        self.deliver("postmaster", "ex1-0000")
        self.deliver("ann:lee", "ex1-0002")
        self.domain.write(".qmail-default", f"&postmaster@{DOMAIN}\n")
        self.serial.maildir(self.tree)
        self.serial.write(".qmail-default", "./Maildir/\n")
        for name, content in CONTROLS.items():
            self.tree.control(name, content)

    def _home(self, path: Path) -> Home:
        made = Home(path, POPUSR, POPGRP)
        made.make()
        return made

    def deliver(self, local: str, box: str) -> Path:
        """The dot-qmail file that gives mail of a local part to a box."""
        return self.domain.write(f".qmail-{local}", f"{self.pop.home}/{box}/\n")

    def lines(self) -> list[str]:
        """Of users/assign."""
        ids = f"ex1:{POPUSR}:{POPGRP}"
        return [
            f"+{DOMAIN}-:{ids}:{self.domain.home}:-::",
            f"+{DIAL_IN}-:{ids}:{self.serial.home}:-::",
        ]

    def relay(self, host: str) -> None:
        """Let `host` have the mail of the customer with his own server."""
        self.tree.control("smtproutes", f"{RELAYED}:{host}\n.{RELAYED}:{host}\n")

    def box(self, name: str) -> Path:
        return self.pop.home / name

    @property
    def master(self) -> list[str]:
        """What cron runs every two minutes."""
        return [str(self.tree.home / "bin/maildirpush"), str(self.serial.home.parent)]

    def push(self) -> bytes:
        """Run the master script; what it says."""
        return self.tree.call(self.master, check=False).stderr

    def age(self, last: bytes) -> None:
        """Make the waiting mail older: that of this second is left for the next run.

        The mail that has `last` in it is the newest, and tried last.
        """
        for path in (self.serial.home / "Maildir/new").iterdir():
            now = path.stat().st_mtime
            age = 60 if last in path.read_bytes() else 120
            os.utime(path, (now, now - age))

    def waiting(self) -> int:
        """How many messages wait for the customer to dial in."""
        return len(contents(self.serial.home / "Maildir"))


@pytest.fixture
def provider(tree: Tree, open_tmp: Path) -> Provider:
    return Provider(tree, open_tmp / "homes")


def messages(maildir: Path) -> list[Message]:
    return [email.message_from_bytes(text) for text in contents(maildir)]


def is_unknown(report: bytes) -> bool:
    """Whether nobody has the address."""
    return report.startswith(b"failure: ") and report.endswith(b"(#5.1.1)/")


def recipients(maildir: Path) -> list[str]:
    """Whom the messages of a box were for first, sorted."""
    return sorted(each.get_all("Delivered-To", [])[-1] for each in messages(maildir))


def test_mail_of_a_domain_and_its_hosts_goes_to_its_pop_boxes(
    provider: Provider,
) -> None:
    tree = provider.tree
    assign(tree, *provider.lines())
    tree.start()
    recips = {
        b"joe@example.com": "ex1-0001",
        b"Joe@Example.COM": "ex1-0001",
        b"joe@mail.example.com": "ex1-0001",
        b"joe@a.b.example.com": "ex1-0001",
        b"Ann.Lee@www.example.com": "ex1-0002",
        b"postmaster@example.com": "ex1-0000",
        b"webmaster@mail.example.com": "ex1-0000",
        b"joe-sales@example.com": "ex1-0000",
        # The exception is for one host, not for what is below it.
        b"joe@pc.some.example.com": "ex1-0001",
    }
    stored = [b"example.com-%b" % each for each in recips]
    tree.queue([*recips])
    reports = dict(zip(recips, tree.reports(*stored), strict=True))
    assert {
        recip for recip, said in reports.items() if said == b"success: did_1+0+0/"
    } == {recip for recip in recips if not recip.startswith((b"web", b"joe-"))}
    # The message, and the two that .qmail-default forwarded.
    tree.wait_for(rb"end msg", count=3)
    for box in BOXES:
        assert recipients(provider.box(box)) == sorted(
            f"example.com-{recip.decode()}"
            for recip, want in recips.items()
            if want == box
        )
    for path in (provider.box("ex1-0001") / "new").iterdir():
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (POPUSR, POPGRP)
        assert found.st_mode & 0o777 == 0o600
    assert provider.waiting() == 0
    # Without a catch-all, what has no file comes back.
    (provider.domain.home / ".qmail-default").unlink()
    tree.queue([b"info@example.com"], sender=b"joe@example.com")
    [gone] = tree.reports(b"example.com-info@example.com")
    assert is_unknown(gone)
    tree.wait_for(rb"end msg", count=2)
    tree.wait_empty()
    assert tree.stop() == 0
    [bounce] = [
        each
        for each in messages(provider.box("ex1-0001"))
        if each["Return-Path"] == "<>"
    ]
    assert "\n<info@example.com>:\n" in str(bounce)


def test_a_new_domain_needs_newu_and_hup_and_no_restart(provider: Provider) -> None:
    tree = provider.tree
    tree.control("virtualdomains", None)
    users = provider.lines()
    assign(tree, users[1])
    tree.start()
    recip = b"joe@example.com"
    tree.run("hold", "remote")
    tree.queue([recip], sender=b"#@[]")
    # Not ours yet; it waits, for an exchanger that is found in the DNS.
    messid = tree.new_messid()
    tree.control("virtualdomains", CONTROLS["virtualdomains"])
    reload(tree, 2)
    tree.queue([recip], sender=b"#@[]")
    # Ours, but nobody's: the domain is missing in users/cdb.
    [nobody] = tree.reports(b"example.com-joe@example.com")
    assert is_unknown(nobody)
    # A file without its last line is not taken, and the table in force stays.
    path = tree.home / "users/assign"
    path.write_text("\n".join(users) + "\n")
    before = (tree.home / "users/cdb").read_bytes()
    done = tree.program("qmail-newu")
    assert done.returncode == 111
    assert done.stderr
    assert (tree.home / "users/cdb").read_bytes() == before
    assign(tree, *users)
    tree.queue([recip], sender=b"#@[]")
    tree.wait_for(rb"delivery \d+: success: did_1\+0\+0/\n")
    # A new file for a user is enough.
    provider.deliver("sue", "ex1-0002")
    tree.queue([b"sue@example.com"], sender=b"#@[]")
    tree.wait_for(rb"delivery \d+: success: did_1\+0\+0/\n")
    assert recipients(provider.box("ex1-0002")) == ["example.com-sue@example.com"]
    assert len(contents(provider.box("ex1-0001"))) == 1
    tree.run("remove", str(messid))
    tree.wait_empty()
    assert tree.stop() == 0


def test_files_others_may_write_and_boxes_of_others_wait(provider: Provider) -> None:
    tree = provider.tree
    assign(tree, *provider.lines())
    file = provider.deliver("joe", "ex1-0001")
    file.chmod(0o666)
    # Made by root, and never given to popusr.
    done = tree.program("maildirmake", str(provider.box("ex1-0003")))
    assert done.returncode == 0
    provider.deliver("new", "ex1-0003")
    # Without its slash it would be a mailbox file.
    provider.domain.write(".qmail-slash", f"{provider.box('ex1-0002')}\n")
    tree.start()
    recips = [b"joe@example.com", b"new@example.com", b"slash@example.com"]
    tree.queue(recips)
    for said in tree.reports(*(b"example.com-%b" % each for each in recips)):
        assert said.startswith(b"deferral: ")
    for box in BOXES:
        assert contents(provider.box(box)) == []
    file.chmod(0o644)
    provider.pop.own(provider.box("ex1-0003"))
    provider.deliver("slash", "ex1-0002")
    tree.run("flush", "all")
    tree.wait_for(rb"success: did_1\+0\+0/\n", count=3)
    tree.wait_empty()
    assert tree.stop() == 0
    for box in ("ex1-0001", "ex1-0002", "ex1-0003"):
        assert len(contents(provider.box(box))) == 1


def test_mail_is_relayed_to_a_customers_own_server(provider: Provider) -> None:
    tree = provider.tree
    assign(tree, *provider.lines())
    with Peer(PIPELINED) as server:
        provider.relay(f"127.0.0.1:{server.port}")
        tree.start()
        # The end of the name is that of a virtual domain; it is none of its hosts.
        recips = [b"Boss@second-example.com", b"joe@pc.Second-Example.COM"]
        for recip in recips:
            tree.queue([recip], sender=b"joe@example.com")
        tree.wait_for(rb"end msg", count=2)
        tree.wait_empty()
        assert tree.stop() == 0
        rcpts = [each for each in server.commands if each.startswith(b"RCPT")]
        assert sorted(rcpts) == sorted(b"RCPT TO:<%b>" % each for each in recips)
        froms = [each for each in server.commands if each.startswith(b"MAIL")]
        assert [each.split()[1] for each in froms] == [b"FROM:<joe@example.com>"] * 2
    for recip in recips:
        assert b"to remote %b\n" % recip in tree.log


def test_mail_for_a_customer_who_dials_in_waits_until_he_does(
    provider: Provider,
) -> None:
    tree = provider.tree
    assign(tree, *provider.lines())
    tree.start()
    # Nothing to do: neither mail nor, beside it, a host.
    (provider.serial.home / "RELAYHOST").write_text("127.0.0.1\n")
    (provider.serial.home.parent / "unused").mkdir()
    assert provider.push() == b""
    relay = provider.serial.home / "RELAYHOST"
    relay.write_text(f"[127.0.0.1]:{free_port()}\n")
    recips = [b"%b@some.example.com" % name for name in (b"ann", b"Bob.B", b"gone")]
    # One message for three of them and a POP box, and a bounce from elsewhere.
    tree.queue([*recips, b"joe@example.com"], sender=b"joe@example.com")
    tree.queue([recips[0]], sender=b"")
    tree.wait_for(rb"end msg", count=2)
    assert b" to local some.example.com-Bob.B@some.example.com\n" in tree.log
    provider.age(b"gone@")
    assert provider.waiting() == 4
    assert b"unable to connect" in provider.push()
    assert provider.waiting() == 4
    with Peer(REFUSING_THE_LAST, gate="DOT") as dialled:
        relay.write_text(f"[127.0.0.1]:{dialled.port}\n")
        with subprocess.Popen(provider.master, stderr=subprocess.DEVNULL) as first:
            dialled.wait_at_gate()
            # The next run finds that a transfer is under way.
            assert provider.push() == b""
            assert len(dialled.served) == 1
            dialled.open_gate()
            assert first.wait(30) == 0
        froms = [each for each in dialled.commands if each.startswith(b"MAIL")]
        assert sorted(each.split()[1] for each in froms) == [
            b"FROM:<>",
            *[b"FROM:<joe@example.com>"] * 3,
        ]
        rcpts = [each for each in dialled.commands if each.startswith(b"RCPT")]
        assert sorted(rcpts) == sorted(
            b"RCPT TO:<%b>" % each for each in (*recips, recips[0])
        )
        assert len(dialled.contents) == 3
        # What the server sees is the mail, not how it was kept.
        assert not any(b"Delivered-To" in each for each in dialled.contents)
    assert provider.waiting() == 0
    tree.wait_for(rb"end msg")
    tree.wait_empty()
    assert tree.stop() == 0
    plain, bounce = sorted(contents(provider.box("ex1-0001")), key=len)
    assert b"Return-Path: <joe@example.com>\n" in plain
    assert bounce.startswith(b"Return-Path: <>\n")
    assert b"<gone@some.example.com>:\n127.0.0.1 said: 550 no such person" in bounce
