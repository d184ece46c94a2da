"""qmail-pop3d on pipes and on a socket, as an ordinary user."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT

pytestmark = pytest.mark.root

UID = 64777
RUN = "import sys; from qsend.cli.qmail_pop3d import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def home(open_tmp: Path) -> Path:
    home = open_tmp / "home"
    home.mkdir()
    for name in ("", "tmp", "new", "cur"):
        (home / "Maildir" / name).mkdir()
    chown(home)
    return home


def chown(top: Path) -> None:
    for path in (top, *top.rglob("*")):
        os.chown(path, UID, UID)


def add(home: Path, name: str, content: bytes) -> None:
    path = home / "Maildir" / name
    path.write_bytes(content)
    os.chown(path, UID, UID)


def pop3d(
    home: Path, stdin: bytes, *args: str, uid: int = UID
) -> subprocess.CompletedProcess[bytes]:
    code = f"import os; os.setgroups([]); os.setgid({uid}); os.setuid({uid})"
    whole = (
        "import sys; from qsend.cli.qmail_pop3d import main\n"
        f"{code}\nsys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", whole, *args],
        input=stdin,
        capture_output=True,
        cwd=home,
        env={"PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )


def test_session_on_pipes(home: Path) -> None:
    add(home, "new/1.a", b"Subject: one\n\n.body\n")
    add(home, "cur/2.b:2,S", b"Subject: two\n\nlast line without end")
    done = pop3d(
        home,
        b"STAT\r\nLIST\r\nUIDL 1\r\nRETR 1\r\nTOP 2 0\r\nDELE 2\r\nSTAT\r\nQUIT\r\n",
        "Maildir",
    )
    assert done.stdout == (
        b"+OK \r\n"
        b"+OK 2 55\r\n"
        b"+OK \r\n1 20\r\n2 35\r\n.\r\n"
        b"+OK 1 1.a\r\n"
        b"+OK \r\nSubject: one\r\n\r\n..body\r\n.\r\n"
        b"+OK \r\nSubject: two\r\n\r\n.\r\n"
        b"+OK \r\n"
        b"+OK 1 20\r\n"
        b"+OK \r\n"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    left = [str(p.relative_to(home)) for p in home.rglob("Maildir/*/*")]
    assert left == ["Maildir/cur/1.a:2,"]


@pytest.mark.parametrize("end", [b"", b"QUI", b"x" * 5000])
def test_client_that_leaves_changes_nothing(home: Path, end: bytes) -> None:
    add(home, "new/1.a", b"x\n")
    done = pop3d(home, b"DELE 1\r\nRETR 9\r\n" + end, "Maildir")
    assert done.returncode == 0
    assert done.stdout.startswith(b"+OK \r\n+OK \r\n-ERR not that many messages\r\n")
    assert [p.name for p in home.rglob("new/*")] == ["1.a"]


@pytest.mark.parametrize("args", [("Nowhere",), ()])
def test_without_a_maildir_it_says_so(home: Path, args: tuple[str, ...]) -> None:
    done = pop3d(home, b"STAT\r\n", *args)
    assert done.stdout == b"-ERR this user has no $HOME/Maildir\r\n"
    assert done.returncode == 0
    assert b"qmail-pop3d: uid 64777: " in done.stderr


def test_maildir_that_its_user_may_not_enter_is_none(home: Path) -> None:
    os.chown(home / "Maildir", 0, 0)
    (home / "Maildir").chmod(0o700)
    done = pop3d(home, b"", "Maildir")
    assert done.stdout == b"-ERR this user has no $HOME/Maildir\r\n"
    assert b"Permission denied" in done.stderr


def test_maildir_without_cur_cannot_be_scanned(home: Path) -> None:
    (home / "Maildir/cur").rmdir()
    done = pop3d(home, b"", "Maildir")
    assert done.stdout == b"-ERR [SYS/TEMP] unable to scan $HOME/Maildir\r\n"


def test_root_is_not_served(home: Path) -> None:
    done = pop3d(home, b"QUIT\r\n", "Maildir", uid=0)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"qmail-pop3d invoked as uid 0, terminating\n"


def test_message_that_is_gone_is_refused_and_the_session_goes_on(home: Path) -> None:
    add(home, "new/1.a", b"x\n")
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(30)
        code = f"import os; os.setgid({UID}); os.setuid({UID})"
        command = RUN.replace("sys.exit", f"{code}; sys.exit")
        process = subprocess.Popen(
            [sys.executable, "-c", command, "Maildir"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            cwd=home,
            env={"PYTHONPATH": str(ROOT)},
        )
        theirs.close()
        stream = ours.makefile("rwb", buffering=0)
        assert stream.readline() == b"+OK \r\n"
        (home / "Maildir/new/1.a").unlink()
        stream.write(b"RETR 1\r\n")
        assert stream.readline() == b"-ERR unable to open that message\r\n"
        stream.write(b"DELE 1\r\nQUIT\r\n")
        assert stream.readline() == b"+OK \r\n"
        assert stream.readline() == b"+OK \r\n"
        assert stream.readline() == b""
        stream.close()
        assert process.wait(30) == 0


def test_large_message_arrives_whole_by_socket(home: Path) -> None:
    body = b"".join(b"%d .line of a large message\n.\n" % n for n in range(100_000))
    add(home, "new/1.a", b"Subject: large\n\n" + body)
    done = pop3d(home, b"RETR 1\r\nQUIT\r\n", "Maildir")
    want = b"Subject: large\r\n\r\n" + body.replace(b"\n.", b"\n..").replace(
        b"\n", b"\r\n"
    )
    assert done.stdout == b"+OK \r\n+OK \r\n" + want + b".\r\n+OK \r\n"
