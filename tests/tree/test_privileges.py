"""Every process of a running tree has what its role needs, and nothing else."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.core.model import Accounts
from qsend.formats.layout import ENTRIES
from qsend.sysio import sandbox
from qsend.sysio.accounts import load_accounts
from qsend.sysio.queuemaker import owner_of
from tests.mariadb import Database, MariaDb
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree import procview
from tests.tree.harness import Installation, Tree
from tests.tree.procview import Seen

pytestmark = pytest.mark.root

SECRET = "hunter2-of-the-caller"
SENDER, REMOTE = b"secret-sender@elsewhere.example", b"secret-recip@far.example"
CONFINED = ("queue", "clean", "send", "lookup", "remote")
ROLES = {"start", "lspawn", "local", *CONFINED}

# Sockets of one role that lead to another; of remote, there are several.
LINKS = {
    ("start", "queue"), ("start", "lookup"), ("start", "clean"), ("start", "lspawn"),
    ("start", "remote"), ("start", "send"), ("send", "queue"), ("send", "clean"),
    ("send", "lspawn"), ("send", "remote"), ("lspawn", "lookup"), ("lspawn", "local"),
    ("send", "lookup"),
}  # fmt: skip
LISTENING = Counter(
    {
        ("start", "enqueue.sock"): 1, ("queue", "enqueue.sock"): 1,
        ("start", "control.sock"): 1, ("send", "control.sock"): 1,
        ("start", "lookup.sock"): 1, ("lookup", "lookup.sock"): 1,
    }
)  # fmt: skip

# What may be open below the queue directory.
OPEN = {
    "start": r"lock/sendmutex",
    "send": r"\.|lock/sendmutex|lock/trigger|(info|local|remote|mess)/\d+|bounce|todo",
    "clean": r"\.|lock/sendmutex|pid|mess/\d+|intd|todo|aside",
    "queue": r"\.|pid|mess/\d+|intd|todo",
    "lspawn": r"mess",
    "lookup": r"(?!)",
    "remote": r"(?!)",
    "local": r"(?!)",
}
KERNEL = {"anon_inode:[eventpoll]", "anon_inode:[eventfd]"}


class Secretive(Tree):
    """A tree whose caller has something in the environment."""

    def command(self, name: str, *args: str) -> list[str]:
        given = [f"SECRET={SECRET}", f"HOSTALIASES=/{SECRET}", f"TZ={SECRET}"]
        return ["/usr/bin/env", *given, *super().command(name, *args)]


@pytest.fixture(scope="module")
def running(installation: Installation, mariadb: MariaDb) -> Iterator[Tree]:
    """A tree that has delivered, bounced and asked the network."""
    home = installation.new_home()
    with Secretive(installation, home) as tree, Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.control("sqlserver", Database(mariadb).sqlserver.decode())
        (tree.home / "control/sqlserver").chmod(0o600)
        tree.maildir()
        tree.alias("env", f"|env >{tree.home}/alias/env\n")
        tree.start("--default-delivery", "./Maildir/")
        recips = [b"postmaster@here.example", b"env@here.example", REMOTE]
        tree.queue(recips, sender=SENDER)
        assert all(each.startswith(b"success") for each in tree.reports(*recips))
        tree.queue([b"nobody-here@here.example"], sender=b"postmaster@here.example")
        tree.wait_for(rb"bounce msg \d+ qp \d+\n")
        tree.wait_for(rb"end msg \d+\n", count=2)
        yield tree
        assert tree.stop() == 0


@pytest.fixture(scope="module")
def seen(running: Tree) -> dict[str, list[Seen]]:
    return procview.family(running)


@pytest.fixture(scope="module")
def accounts() -> Accounts:
    return load_accounts(single_user=False)


def test_every_role_runs(seen: dict[str, list[Seen]]) -> None:
    assert set(seen) == ROLES
    assert {role for role, those in seen.items() if len(those) > 1} <= {"remote"}


def test_ids_are_exactly_those_of_the_role(
    seen: dict[str, list[Seen]], accounts: Accounts
) -> None:
    qmail, nofiles = str(accounts.qmailq.gid), str(accounts.qmailr.gid)
    assert qmail != nofiles
    want = {
        "start": (0, "0", []),
        "send": (accounts.qmails.uid, qmail, [qmail]),
        "clean": (accounts.qmailq.uid, qmail, [qmail]),
        "queue": (accounts.qmailq.uid, qmail, [qmail]),
        "lookup": (accounts.qmailp.uid, nofiles, [nofiles]),
        "lspawn": (0, qmail, [qmail]),
        "local": (accounts.alias.uid, nofiles, [nofiles]),
        "remote": (accounts.qmailr.uid, nofiles, [nofiles]),
    }
    for role, (uid, gid, groups) in want.items():
        for each in seen[role]:
            assert each.ids == ({str(uid)}, {gid}, groups), role


def test_what_can_be_given_up_is_given_up(seen: dict[str, list[Seen]]) -> None:
    for role, those in seen.items():
        for each in those:
            status = each.status
            is_root = role in ("start", "lspawn")
            assert (int(status["CapPrm"][0], 16) != 0) == is_root, role
            assert (int(status["CapEff"][0], 16) != 0) == is_root, role
            assert each.dumpable == is_root, role  # root's are root's in any case
            confined = role in CONFINED
            assert status["NoNewPrivs"] == ["1" if confined else "0"], role
            if "seccomp" in sandbox.features():
                assert status["Seccomp"] == ["2" if confined else "0"], role


def test_wires_are_those_of_the_diagram(seen: dict[str, list[Seen]]) -> None:
    found = procview.links([each for those in seen.values() for each in those])
    remotes = len(seen["remote"])
    want = Counter(LISTENING)
    for one, other in LINKS:
        count = remotes if "remote" in (one, other) else 1
        want[one, other] = want[other, one] = count
    own = found.pop(("remote", "remote"))
    assert found == want
    # Each has a pair of its own, made by its loop to hear of signals.
    assert own == 2 * remotes
    for each in seen["remote"]:
        assert procview.links([each])["remote", "remote"] == 2


def test_open_files_are_those_of_the_role(
    running: Tree, seen: dict[str, list[Seen]]
) -> None:
    for role, those in seen.items():
        for each in those:
            for path in each.files(running.home):
                if not re.fullmatch("queue(/.*)?", path):
                    # What a local child works with is its user's.
                    assert role == "local", path
                    assert path.startswith("alias/")
                    continue
                assert re.fullmatch(OPEN[role], os.path.relpath(path, "queue")), path


def test_nothing_else_is_open_and_the_log_only_as_1_and_2(
    running: Tree, seen: dict[str, list[Seen]]
) -> None:
    log = seen["start"][0].fds[1]
    assert log.startswith("pipe:")
    pipes: dict[str, set[int]] = {}
    for role, those in seen.items():
        for each in those:
            assert each.fds[0] == "/dev/null"
            assert [fd for fd, link in each.fds.items() if link == log] == [1, 2], role
            for fd, link in each.fds.items():
                if fd == 0 or link == log or link.startswith("socket:"):
                    continue
                if link.startswith("pipe:"):
                    pipes.setdefault(link, set()).add(each.pid)
                elif not link.startswith(str(running.home)):
                    is_secret = role == "start" and link.startswith("/memfd:control/")
                    assert is_secret or link in KERNEL, role
    # A process wakes itself by its pipes; nobody else has an end.
    assert all(len(pids) == 1 for pids in pipes.values())


def test_code_of_the_network_is_not_in_lspawn_and_its_children(
    seen: dict[str, list[Seen]],
) -> None:
    """They are forked before it is loaded: a fork costs what there is in memory."""
    loaded = {
        role: "uvloop" in Path(f"/proc/{each.pid}/maps").read_text()
        for role, those in seen.items()
        for each in those
    }
    assert loaded["start"]
    assert loaded["remote"]
    assert not loaded["lspawn"]
    assert not loaded["local"]


def test_titles_and_environments_tell_nothing(
    running: Tree, seen: dict[str, list[Seen]]
) -> None:
    for role, those in seen.items():
        for each in those:
            assert each.title == f"qmail-{role}: qsend".encode()
            assert SECRET.encode() not in each.environ
            for address in (SENDER, REMOTE):
                assert address not in each.environ + each.title
    given = (running.home / "alias/env").read_text()
    assert SECRET not in given
    assert "\nPATH=" in f"\n{given}"
    assert SENDER.decode() in given


def test_home_has_documented_owners_and_modes(
    running: Tree, accounts: Accounts
) -> None:
    qmail, root = accounts.qmailq.gid, 0
    want = {
        "": (root, 0o40755), "bin": (root, 0o40755), "control": (root, 0o40755),
        "run": (root, 0o40755), "users": (root, 0o40755),
        "alias": (accounts.alias.uid, 0o42755),
        "run/send": (accounts.qmails.uid, 0o40700),
        "run/milter": (accounts.qmaild.uid, 0o40700),
        "run/control.sock": (accounts.qmails.uid, 0o140600),
        "run/enqueue.sock": (root, 0o140666), "run/lookup.sock": (root, 0o140666),
        "control/me": (root, 0o100644), "control/sqlserver": (root, 0o100600),
        "bin/qmail-queue": (root, 0o100755), "bin/qmail-lspawn": (root, 0o100700),
    }  # fmt: skip
    for name, owner_and_mode in want.items():
        found = (running.home / name).lstat()
        assert (found.st_uid, found.st_mode) == owner_and_mode, name
        if stat.S_ISDIR(found.st_mode):
            assert found.st_gid == qmail, name
    for entry in ENTRIES:
        owner = owner_of(entry.owner, accounts)
        for path in entry.paths():
            found = (running.home / "queue" / path).lstat()
            assert (found.st_uid, found.st_gid) == (owner.uid, owner.gid), path
            assert stat.S_IMODE(found.st_mode) == entry.mode, path


def test_no_file_runs_with_its_owners_privilege_or_is_open_to_all(
    running: Tree, installation: Installation
) -> None:
    public = {"run/enqueue.sock", "run/lookup.sock"}
    for top in (running.home, installation.path):
        for path in top.rglob("*"):
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                continue
            if not stat.S_ISDIR(found.st_mode):
                assert not found.st_mode & (stat.S_ISUID | stat.S_ISGID), path
            if str(path.relative_to(top)) in public:
                continue
            writable = found.st_mode & stat.S_IWOTH
            # Whoever injects with a foreign qmail-queue pulls the trigger.
            assert not writable or path.name == "trigger", path
