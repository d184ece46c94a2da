"""A session's process: it is the mailbox's user, and reaches its maildir only."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qsend.core.model import Account, Ownership, User
from qsend.sysio import popchild, privilege, sandbox
from qsend.sysio.fork import fork_child

pytestmark = pytest.mark.root
UID = 64779


@pytest.fixture
def home(open_tmp: Path) -> Path:
    home = open_tmp / "home"
    for name in ("tmp", "new", "cur"):
        (home / "Maildir" / name).mkdir(parents=True)
    (home / "Maildir/new/1.a").write_text("Subject: x\n\n")
    (home / "secret").write_text("x")
    for path in (home, *home.rglob("*")):
        os.chown(path, UID, UID)
    return home


def user(home: Path, uid: int = UID) -> User:
    return User(
        name=b"ann@x", uid=uid, gid=uid, home=os.fsencode(home), dash=b"", ext=b"",
        ownership=Ownership.UID_GID,
    )  # fmt: skip


def test_session_serves_the_maildir_as_its_user(home: Path) -> None:
    child = popchild.fork_session(user(home))
    with child.sock as sock:
        sock.settimeout(30)
        sock.sendall(b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
        stream = sock.makefile("rb")
        assert (
            stream.read() == b"+OK \r\n+OK \r\nSubject: x\r\n\r\n.\r\n+OK \r\n+OK \r\n"
        )
        stream.close()
    assert os.waitpid(child.pid, 0)[1] == 0
    assert list(home.glob("Maildir/*/*")) == []


def test_session_of_another_uid_finds_no_maildir(home: Path) -> None:
    home.chmod(0o700)
    child = popchild.fork_session(user(home, UID + 1))
    with child.sock as sock:
        sock.settimeout(30)
        assert sock.recv(100) == b"-ERR this user has no $HOME/Maildir\r\n"
        assert sock.recv(100) == b""
    assert os.waitpid(child.pid, 0)[1] == 0


def probe(home: Path, attempt: Callable[[], object]) -> str:
    """What a confined session gets for an attempt: "done" or the errno's name."""
    ours, theirs = socket.socketpair()

    def run() -> int:
        privilege.drop(Account(uid=UID, gid=UID))
        privilege.harden()
        sandbox.apply("popsession", str(home))
        try:
            attempt()
        except OSError as exc:
            theirs.send(errno.errorcode[exc.errno or 0].encode())
        else:
            theirs.send(b"done")
        return 0

    pid = fork_child(run, (theirs.fileno(),))
    theirs.close()
    with ours:
        answer = ours.recv(100).decode()
    os.waitpid(pid, 0)
    return answer


@pytest.mark.skipif("landlock" not in sandbox.features(), reason="no landlock")
def test_session_reaches_nothing_but_its_maildir(home: Path) -> None:
    assert probe(home, lambda: (home / "Maildir/new/1.a").read_text()) == "done"
    assert probe(home, lambda: (home / "Maildir/new/1.a").unlink()) == "done"
    assert probe(home, lambda: (home / "secret").read_text()) == "EACCES"
    assert probe(home, lambda: (home / "new").write_text("x")) == "EACCES"
    assert probe(home, lambda: Path("/etc/passwd").read_text()) == "EACCES"
    (home / "Maildir/cur/2.b:2,").symlink_to("/etc/passwd")
    assert probe(home, lambda: (home / "Maildir/cur/2.b:2,").read_text()) == "EACCES"


@pytest.mark.skipif("seccomp" not in sandbox.features(), reason="no seccomp")
def test_session_runs_nothing_and_connects_nowhere(home: Path) -> None:
    assert probe(home, lambda: os.execv("/bin/true", ["true"])) == "EPERM"
    assert probe(home, lambda: subprocess.run(["/bin/true"], check=True)) == "EPERM"
    assert probe(home, lambda: socket.socket().close()) == "EPERM"
    assert probe(home, lambda: socket.socket(socket.AF_UNIX).close()) == "EPERM"
