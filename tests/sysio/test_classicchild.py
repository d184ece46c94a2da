"""A classic program finds the descriptors, ids and directory of qmail-start."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from qsend.core.model import Account, Accounts
from qsend.sysio.classicchild import ClassicProgram, run_classic
from qsend.sysio.fork import fork_child

PROBE = f"""#!{sys.executable} -IS
import json, os, sys
given = open("/proc/self/environ").read()
fds = [int(fd) for fd in os.listdir("/proc/self/fd")]
fds = [fd for fd in fds if os.path.exists(f"/proc/self/fd/{{fd}}")]
os.write(1, json.dumps({{
    "argv": sys.argv[1:], "ids": [os.getuid(), os.getgid(), os.getgroups()],
    "cwd": os.getcwd(), "fds": sorted(fds), "in": os.read(0, 5).decode(),
    "env": [pair.split("=")[0] for pair in given.split("\\0")[:-1]],
}}).encode())
"""
QMAIL, NOFILES = 64300, 64301
ACCOUNTS = Accounts(
    alias=Account(uid=64310, gid=NOFILES),
    qmaild=Account(uid=64311, gid=NOFILES),
    qmaill=Account(uid=64312, gid=NOFILES),
    qmailp=Account(uid=64313, gid=NOFILES),
    qmailq=Account(uid=64314, gid=QMAIL),
    qmailr=Account(uid=64315, gid=NOFILES),
    qmails=Account(uid=64316, gid=QMAIL),
    root=Account(uid=0, gid=QMAIL),
)


@pytest.fixture
def home(open_tmp: Path) -> Path:
    (open_tmp / "queue/mess").mkdir(parents=True)
    probe = open_tmp / "probe"
    probe.write_text(PROBE)
    probe.chmod(0o755)
    return open_tmp


def run(
    home: Path,
    role: str,
    path: str,
    *,
    single_user: bool = False,
    say: bytes = b"hello",
) -> bytes:
    ours, theirs = socket.socketpair()
    program = ClassicProgram(
        role=role,
        path=path,
        home=str(home),
        default_delivery=b"./Maildir/",
        single_user=single_user,
    )
    pid = fork_child(
        lambda: run_classic(program, ACCOUNTS, theirs), (theirs.fileno(),), role
    )
    theirs.close()
    with ours:
        if say:
            ours.send(say)
        answer = b"".join(iter(lambda: ours.recv(65536), b""))
        os.waitpid(pid, 0)
    return answer


@pytest.mark.root
@pytest.mark.parametrize(
    ("role", "argv", "ids", "cwd"),
    [
        ("classic-lspawn", ["./Maildir/"], [0, QMAIL, [QMAIL]], "queue/mess"),
        ("classic-rspawn", [], [64315, QMAIL, [QMAIL]], "queue/mess"),
        ("classic-clean", [], [64314, QMAIL, [QMAIL]], "queue"),
    ],
)
def test_program_runs_as_qmail_start_would_run_it(
    home: Path, role: str, argv: list[str], ids: list[object], cwd: str
) -> None:
    found = json.loads(run(home, role, str(home / "probe")))
    assert found == {
        "argv": argv,
        "ids": ids,
        "cwd": str(home / cwd),
        "fds": [0, 1, 2],
        "in": "hello",
        "env": ["PATH", "QSEND_HOME"],
    }


def test_single_user_program_keeps_its_ids(home: Path) -> None:
    answer = run(home, "classic-clean", str(home / "probe"), single_user=True)
    assert json.loads(answer)["ids"][:2] == [os.getuid(), os.getgid()]


def test_missing_program_is_told_on_the_log(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(home, "classic-clean", "/no/such", single_user=True, say=b"") == b""
    want = "alert: classic-clean: cannot run /no/such: No such file or directory\n"
    assert capfd.readouterr().err == want
