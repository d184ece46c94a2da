"""The commands of docs/MIGRATION.md, run as they are written there."""

from __future__ import annotations

import mailbox
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.tree.harness import Tree

GUIDE = Path(__file__).parents[2] / "docs/MIGRATION.md"
VMAIL = 64777


def command(name: str, **replaced: str) -> str:
    """A command of the guide, with other paths."""
    found = re.search(
        rf"<!-- tested: {name} -->\n```\n(.*?)```", GUIDE.read_text(), re.S
    )
    assert found, name
    text = found[1]
    for old, new in replaced.items():
        path = PLACES[old]
        assert path in text, old
        text = text.replace(path, new)
    return text


PLACES = {
    "map": "/etc/mail/virtusertable",
    "aliases": "/etc/aliases",
    "bin": "/var/qmail/bin",
    "boxes": "/etc/postfix/vmailbox",
    "base": "/var/vmail",
    "owner": "5000:5000",
    "mbox": "/var/mail/joe",
    "maildir": "/home/joe/Maildir",
}


def run(tree: Tree, text: str, **environ: str) -> None:
    path = f"{tree.home}/bin:{tree.home.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu"],
        input=text.encode(),
        env={"PATH": path, "QSEND_HOME": str(tree.home), **environ},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def addresses(maildir: Path) -> list[bytes]:
    """The Delivered-To lines of what has arrived, the last one of each message."""
    found = [path.read_bytes() for path in (maildir / "new").iterdir()]
    return sorted(
        text.split(b"\n")[1].removeprefix(b"Delivered-To: ") for text in found
    )


def test_virtual_aliases_of_sendmail_and_postfix_become_aliases(tree: Tree) -> None:
    table = tree.home.parent / "virtusertable"
    table.write_text(
        "# comment\n\n"
        "joe@example.com\tjoe-box@here.example\n"
        "  # indented\n"
        "ann@example.com  ann-box@here.example, joe-box@here.example\n"
        "jim@example.org error:nouser 550 no such user\n"
        "@example.org   all-box@here.example\n"
    )
    aliases = tree.home.parent / "aliases"
    aliases.write_text("sales: joe-box@here.example\n" + command("refused"))
    text = command(
        "virtusertable",
        map=str(table),
        aliases=str(aliases),
        bin=str(tree.home / "bin"),
    )
    run(tree, text, ALIASES=str(aliases))
    tree.control("virtualdomains", "example.com:alias\nexample.org:alias\n")
    tree.alias("default", f"| {tree.home}/bin/fastforward -d {aliases}.cdb\n")
    boxes = {}
    for name in ("joe", "ann", "all"):
        boxes[name] = tree.maildir(f"{name}.box")
        tree.alias(f"{name}-box", f"./{name}.box/\n")
    tree.start()
    recips = [
        b"joe@example.com",
        b"ANN@example.com",
        b"any@example.org",
        b"sales@here.example",
    ]
    for recip in recips:
        tree.send([recip])
    tree.wait_for(rb"end msg", count=8)
    assert [len(addresses(boxes[name])) for name in ("joe", "ann", "all")] == [3, 1, 1]
    tree.send([b"nobody@example.com"], sender=b"joe-box@here.example")
    assert tree.reports(b"alias-nobody@example.com")[0].startswith(b"failure: ")
    tree.send([b"jim@example.org"], sender=b"joe-box@here.example")
    assert tree.reports(b"alias-jim@example.org") == [b"failure: No_such_user./"]
    assert tree.stop() == 0


@pytest.mark.root
def test_virtual_mailboxes_of_postfix_become_dotqmail_files(tree: Tree) -> None:
    base = tree.home.parent / "vmail"
    domain = base / "example.com"
    domain.mkdir(parents=True)
    os.chown(domain, VMAIL, VMAIL)
    boxes = {name: tree.maildir(name, domain) for name in ("joe", "jane.doe", "rest")}
    table = tree.home.parent / "vmailbox"
    table.write_text(
        "# comment\n"
        "joe@example.com      example.com/joe/\n"
        "Jane.Doe@example.com example.com/jane.doe/\n"
        "@example.com         example.com/rest/\n"
    )
    owner = f"{VMAIL}:{VMAIL}"
    run(tree, command("mailboxes", boxes=str(table), base=str(base), owner=owner))
    tree.control("virtualdomains", "example.com:example.com\n")
    (tree.home / "users/assign").write_text(
        f"+example.com-:vmail:{VMAIL}:{VMAIL}:{domain}:-::\n.\n"
    )
    assert tree.program("qmail-newu").returncode == 0
    tree.start()
    for recip in (b"joe@example.com", b"jane.doe@example.com", b"x.y@example.com"):
        tree.send([recip])
    tree.wait_for(rb"end msg", count=3)
    assert {name: addresses(box) for name, box in boxes.items()} == {
        "joe": [b"example.com-joe@example.com"],
        "jane.doe": [b"example.com-jane.doe@example.com"],
        "rest": [b"example.com-x.y@example.com"],
    }
    assert tree.stop() == 0


@pytest.mark.root
def test_plus_sign_extensions_work_beside_those_with_a_hyphen(tree: Tree) -> None:
    home = tree.home.parent / "joe"
    home.mkdir()
    os.chown(home, VMAIL, VMAIL)
    box = tree.maildir("list", home)
    (home / ".qmail-list").write_text("./list/\n")
    line = f"joe:{VMAIL}:{VMAIL}:{home}:-::\n"
    (tree.home / "users/assign").write_text(f"+joe-:{line}+joe+:{line}.\n")
    assert tree.program("qmail-newu").returncode == 0
    tree.start()
    for recip in (b"joe-list@here.example", b"joe+list@here.example"):
        tree.send([recip])
    tree.wait_for(rb"end msg", count=2)
    assert addresses(box) == [b"joe+list@here.example", b"joe-list@here.example"]
    assert tree.stop() == 0


def test_mbox_becomes_a_maildir_with_its_flags(tree: Tree) -> None:
    source, target = tree.home.parent / "mbox", tree.home.parent / "Maildir"
    source.write_text(
        "From a@x Thu Jan  1 00:00:00 1998\nSubject: one\nStatus: RO\n\n>From me\n\n"
        "From b@x Thu Jan  1 00:00:01 1998\nSubject: two\n\nbody\n\n"
    )
    run(tree, command("mbox", mbox=str(source), maildir=str(target)))
    made = mailbox.Maildir(str(target), factory=None)
    found = {message["Subject"]: message for message in made}
    assert sorted(found) == ["one", "two"]
    assert (found["one"].get_subdir(), found["one"].get_flags()) == ("cur", "S")
    assert found["two"].get_subdir() == "new"
    assert source.exists()


def test_what_setup_replaced_comes_back(tree: Tree) -> None:
    program, page = tree.home / "bin/qmail-queue", tree.home / "man/man8/qmail-queue.8"
    script(program, "#!/bin/sh\necho classic\n")
    program.chmod(0o4711)
    page.write_text("classic page\n")
    tree.run("setup")
    assert tree.program("qmail-queue", "--help").stdout.startswith(b"usage: ")
    tree.start()
    started = tree.home.parent / "started"
    script(tree.home.parent / "svc", f'#!/bin/sh\necho "$@" >{started}\n')
    run(tree, command("back", bin=str(tree.home / "bin")))
    assert tree.wait() == 0
    assert started.read_text() == "-u /service/qmail-send\n"
    assert stat.S_IMODE(program.stat().st_mode) == 0o4711
    assert tree.program("qmail-queue").stdout == b"classic\n"
    assert page.read_text() == "classic page\n"
    assert not list(tree.home.glob("**/*.before-qsend"))


def test_postfix_may_hand_over_its_mail(tree: Tree) -> None:
    text = command("handover", bin=str(tree.home / "bin"))
    handover = str(script(tree.home.parent / "to-qsend", text))
    box = tree.maildir("box")
    tree.alias("box", "./box/\n")
    tree.start()
    message = b"From: a@x\nBcc: kept\n\nbody\n"
    recips = ["box@here.example", "box@here.example"]
    tree.call([handover, "", *recips], stdin=message)
    tree.wait_for(rb"end msg")
    found = [path.read_bytes() for path in (box / "new").iterdir()]
    assert len(found) == 2
    assert all(text.startswith(b"Return-Path: <>\n") for text in found)
    assert all(text.endswith(message) for text in found)
    done = tree.call([handover, "a@x", "a" * 5000], stdin=message, check=False)
    assert done.returncode == 69
    tree.control("queueminfree", f"{1 << 60}\n")
    tree.run("reload")
    done = tree.call([handover, "a@x", *recips], stdin=message, check=False)
    assert done.returncode == 75
    assert tree.stop() == 0
