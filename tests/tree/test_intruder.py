"""What code of somebody else could do in each process: tried in forks of them."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pwd import getpwnam

import pytest

from qsend.core.model import Account
from qsend.sysio import privilege, sandbox
from qsend.sysio.accounts import load_accounts
from qsend.sysio.fork import fork_child
from tests.pop.conftest import PopTree
from tests.pop.conftest import mailbox as mailbox
from tests.pop.conftest import pem as pem
from tests.pop.conftest import unstarted as unstarted
from tests.ports import free_ports
from tests.smtppeer import LOCKSTEP, Peer
from tests.torture import injector
from tests.tree.harness import Tree
from tests.tree.intruder import ATTEMPTS

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not {"landlock", "seccomp"} <= set(sandbox.features()),
        reason="no seccomp or no Landlock",
    ),
]

HERE = Path(__file__).parent
_PR_SET_DUMPABLE = 4
USER = 64970
"""Somebody whom nothing of all this concerns."""

KINDS = (
    "queue", "clean", "send", "lookup", "remote", "smtpd", "qmtpd", "pop3d", "login",
    "passwordcheck", "popsession", "parser", "local", "runner",
)  # fmt: skip
"""The columns of TABLE. start and lspawn are root's, without limits."""

# P and A: refused, as EPERM and EACCES. +: done, for the process needs it, or is
# root. *: the user's own affair, in a local child or a program that a rule names: the
# kernel's answer.
TABLE = """
read another's mailbox          A A A A A A A A A A A A A A
read a message                  + + + A A A A A A A A A A A
list envelopes                  + + + A A A A A A A A A A A
read recipients                 A A + A A A A A A A A A A A
read a password                 A A A A A A A A + + A A A A
read the private key            A A A A A A A A + + A A A A
read /etc/shadow                A A A A A A A A + + A A A A
read /etc/passwd                A A A + A A A A + + A A + +
change a message                + + A A A A A A A A A A A A
change recipients               A A + A A A A A A A A A A A
change a control                A A A A A A A A + A A A A A
create in queue/pid             + + A A A A A A A A A A A A
create in queue/mess            + + A A A A A A A A A A A A
create in queue/intd            + + A A A A A A A A A A A A
create in queue/todo            + + A A A A A A A A A A A A
create in queue/info            A A + A A A A A A A A A A A
create in queue/local           A A + A A A A A A A A A A A
create in queue/remote          A A + A A A A A A A A A A A
create in queue/bounce          A A + A A A A A A A A A A A
create in queue/aside           + + A A A A A A A A A A A A
create in queue/lock            + + A A A A A A A A A A A A
create in run                   A A A A A A A A + A A A A A
create in run/send              A A + A A A A A A A A A A A
create in run/milter            A A A A A A A A A A A A A +
create in control               A A A A A A A A + A A A A A
create in users                 A A A A A A A A + A A A A A
create in bin                   A A A A A A A A + A A A A A
create in alias                 A A A A A A A A A A A A A A
create in /tmp                  A A A A A A A A + A A A + +
signal others of the tree       P P P P P P P P P P P P P P
trace the tree                  P P P P P P P P P P P P P P
look into the tree              A A A A A A A A A A A A A A
take a descriptor of the tree   P P P P P P P P P P P P P P
read memory of the tree         P P P P P P P P P P P P P P
signal one's uid                P P P P P P P P P P P P + +
trace one's uid                 P P P P P P P P P P P P * *
read memory of one's uid        P P P P P P P P P P P P * *
take a descriptor of one's uid  P P P P P P P P P P P P * *
limit one's uid                 P P P P P P P P P P P P * *
signal everybody                P P P P P P P P P P P P * *
inet socket                     P P P + + + P P + + P P + +
inet6 socket                    P P P + + + P P + + P P + +
connect to a service            P P P + + + P P + + P P + +
unix socket                     + + + + P P P P + + P + + +
netlink socket                  P P P + + + P P + + P P + +
packet socket                   P P P P P P P P P P P P P P
raw socket                      P P P P P P P P P P P P P P
exec                            P P P P P P P P P P P P + +
user namespace                  P P P P P P P P P P P P * *
mount                           P P P P P P P P P P P P * *
chroot                          P P P P P P P P P P P P P P
make a device                   P P P P P P P P P P P P * *
bpf                             P P P P P P P P P P P P * *
io_uring                        P P P P P P P P P P P P * *
keyring                         P P P P P P P P P P P P * *
open by handle                  P P P P P P P P P P P P * *
set uid 0                       P P P P P P P P + + P P P P
set gid 0                       P P P P P P P P + + P P P P
set groups                      P P P P P P P P + + P P P P
set capabilities                P P P P P P P P P P P P P P
"""
_LETTERS = {"EPERM": "P", "EACCES": "A", "done": "+"}


def _bystander(uid: int) -> int:
    """A process of that uid which hides nothing from its equals."""

    def run() -> int:
        privilege.drop(Account(uid=uid, gid=uid))
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
        signal.pause()
        return 0

    return fork_child(run, ())


@contextmanager
def bystanders(uids: set[int]) -> Iterator[dict[str, int]]:
    pids = {str(uid): _bystander(uid) for uid in uids}
    try:
        yield pids
    finally:
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def set_up(tree: Tree, place: Path) -> tuple[Path, int]:
    """Secrets, listeners, and somebody's mailbox.

    Returns: the path of that, and the port of QMTP.
    """
    place.mkdir()
    os.mkfifo(place / "go")
    (place / "targets").touch()
    smtp, qmtp = free_ports(2)
    tree.control("smtplisten", f"127.0.0.1:{smtp}\n")
    tree.control("qmtplisten", f"127.0.0.1:{qmtp}\n")
    program = tree.home / "bin/qmail-queue"
    tree.control("tcp.qmtp", f':allow,RELAYCLIENT="",QMAILQUEUE="{program}"\n')
    tree.run("tcprules", "qmtp")
    tree.control("smtpauth", "relay.example:me:secret\n")
    (tree.home / "control/smtpauth").chmod(0o600)
    mailbox = place / "mailbox"
    mailbox.write_text("private\n")
    mailbox.chmod(0o600)
    os.chown(mailbox, USER, USER)
    return mailbox, qmtp


def facts(tree: Tree, messid: int, mailbox: Path) -> dict[str, object]:
    """What ATTEMPTS ask for."""
    where, control = f"{messid % 23}/{messid}", tree.home / "control"
    return {
        "home": str(tree.home),
        "family": [(each.pid, each.uids().real) for each in tree.family()],
        "paths": {
            "mailbox": str(mailbox),
            "mess": f"{tree.home}/queue/mess/{where}",
            "remote": f"{tree.home}/queue/remote/{where}",
            "smtpauth": str(control / "smtpauth"),
            "key": str(control / "servercert.pem"),
            "me": str(control / "me"),
        },
    }


def uids_of(mailbox: str) -> set[int]:
    """All under which something runs."""
    accounts = load_accounts(single_user=False)
    own = (
        accounts.root, accounts.alias, accounts.qmaild, accounts.qmailp,
        accounts.qmailq, accounts.qmailr, accounts.qmails,
    )  # fmt: skip
    return {USER, getpwnam(mailbox).pw_uid, *(each.uid for each in own)}


def wait_told(tree: Tree) -> dict[str, dict[str, str]]:
    """How the attempts of each kind of process ended, as a letter."""
    for kind in KINDS:
        tree.find(rb"intruder %b is done\n" % kind.encode())
    told: dict[str, dict[str, str]] = {}
    for line in re.findall(rb"(?m)^intruder (\w+) (.+): (\w+)$", tree.log):
        kind, what, result = (each.decode() for each in line)
        told.setdefault(what, {})[kind] = _LETTERS.get(result, result)
    return told


def test_each_process_is_refused_what_it_does_not_need(
    unstarted: PopTree, mailbox: str, open_tmp: Path
) -> None:
    tree, place = unstarted.tree, open_tmp / "place"
    private, qmtp = set_up(tree, place)
    # As long as somebody could write to it, nobody begins.
    go = os.open(place / "go", os.O_RDWR)
    patch = f"PLACE = {str(place)!r}\n{(HERE / 'intruder.py').read_text()}"
    with (
        Peer(LOCKSTEP | {"RCPT": [b"451 no"] * 9}) as peer,
        bystanders(uids_of(mailbox)) as same,
    ):
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.start("--default-delivery", "./Maildir/", patch=patch)
        tree.queue([b"far@x.example"])
        messid = tree.new_messid()
        tree.wait_for(rb"deferral")
        tree.queue([f"{mailbox}@here.example".encode()])
        tree.wait_for(rb"success")
        # So that there is a runner.
        assert injector.queue_by_qmtp(str(qmtp), 1, "", ["far@x.example"])
        with unstarted.session(mailbox) as client:
            client.stat()
            known = facts(tree, messid, private)
            told = {**known, "port": peer.port, "same": same}
            (place / "targets").write_text(json.dumps(told))
            os.close(go)
            found = wait_told(tree)
        assert tree.stop() == 0
    want = {}
    for row in TABLE.strip("\n").splitlines():
        letters = dict(zip(KINDS, row[32:].split(), strict=True))
        want[row[:32].strip()] = letters
        for kind, letter in letters.items():
            if letter == "*":
                letters[kind] = found[row[:32].strip()][kind]
    assert set(want) == set(ATTEMPTS)
    assert found == want


def test_threat_model_names_every_kind_of_process() -> None:
    rows = re.findall(
        r"(?m)^\| (\w+) \|", (HERE.parents[1] / "SECURITY.md").read_text()
    )
    ours = {"enqueue" if kind == "queue" else kind for kind in KINDS}
    assert {*ours, "start", "lspawn"} == set(rows) - {"process"}
